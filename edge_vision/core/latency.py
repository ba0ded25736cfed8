"""Latency percentiles and rates."""

from __future__ import annotations

import threading
import time

import numpy as np

PERCENTILES = (50, 95, 99)


class LatencyWindow:
    """The last `size` durations of one stage, in ms. Thread-safe."""

    def __init__(self, size: int = 512) -> None:
        self._values = np.zeros(size, np.float64)
        self._count = 0
        self._lock = threading.Lock()

    def add(self, value_ms: float) -> None:
        """Record a duration."""
        with self._lock:
            self._values[self._count % len(self._values)] = value_ms
            self._count += 1

    def percentiles(self) -> dict[str, float] | None:
        """{"p50": ms, "p95": ms, "p99": ms}; None if there is no measurement yet."""
        with self._lock:
            if self._count == 0:
                return None
            values = self._values[: self._count].copy()
        return {
            f"p{p}": float(v) for p, v in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)
        }

    def reset(self) -> None:
        """Discard all durations."""
        with self._lock:
            self._count = 0


class RateMeter:
    """Events per second between two readings."""

    def __init__(self) -> None:
        self._count = 0
        self._read_count = 0
        self._read_s = time.monotonic()

    def count(self) -> None:
        """Count an event."""
        self._count += 1

    def read_hz(self) -> float:
        """Rate since the last reading, in Hz."""
        now_s = time.monotonic()
        elapsed_s = now_s - self._read_s
        count, self._read_count, self._read_s = self._count - self._read_count, self._count, now_s
        return count / elapsed_s if elapsed_s > 0 else 0.0
