"""Latency percentiles, histograms and rates."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from itertools import accumulate

import numpy as np

PERCENTILES = (50, 95, 99)
BUCKETS_MS = (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000, 2000, 5000)
"""Upper bounds of the buckets of a histogram, inclusive."""


class LatencyWindow:
    """The last `size` durations of one stage, in ms, and a histogram of all. Thread-safe."""

    def __init__(self, size: int = 512) -> None:
        self._values = np.zeros(size, np.float64)
        self._lock = threading.Lock()
        self.reset()

    def add(self, value_ms: float) -> None:
        with self._lock:
            self._values[self._count % len(self._values)] = value_ms
            self._count += 1
            self._buckets[bisect_left(BUCKETS_MS, value_ms)] += 1
            self._sum_ms += max(0.0, value_ms)

    def percentiles(self) -> dict[str, float] | None:
        """{"p50": ms, "p95": ms, "p99": ms}; None if there is no measurement yet."""
        with self._lock:
            if self._count == 0:
                return None
            values = np.sort(self._values[: self._count])
        at = [p / 100 * (len(values) - 1) for p in PERCENTILES]
        found = np.interp(at, np.arange(len(values)), values)  # np.percentile takes five times as long.
        return {f"p{p}": float(value) for p, value in zip(PERCENTILES, found, strict=True)}

    def histogram(self) -> str:
        """How many durations since the start or `reset` took at most each of BUCKETS_MS, how many there are,
        and their sum in ms; separated by spaces."""
        with self._lock:
            return " ".join(map(str, (*accumulate(self._buckets), round(self._sum_ms, 3))))

    @property
    def count(self) -> int:
        """How many durations were recorded since the start or `reset`."""
        return self._count

    def reset(self) -> None:
        with self._lock:
            self._count, self._sum_ms = 0, 0.0
            self._buckets = [0] * (len(BUCKETS_MS) + 1)


class RateMeter:
    """Events per second between two readings."""

    def __init__(self) -> None:
        self._count = 0
        self._read_count = 0
        self._read_s = time.monotonic()

    def count(self) -> None:
        self._count += 1

    def read_hz(self) -> float:
        """Rate since the last reading, in Hz."""
        now_s = time.monotonic()
        elapsed_s = now_s - self._read_s
        count, self._read_count, self._read_s = self._count - self._read_count, self._count, now_s
        return count / elapsed_s if elapsed_s > 0 else 0.0


class LoadMeter:
    """Share of the last `window_s` seconds during which one thread worked. One thread adds, any may read."""

    def __init__(self, window_s: float = 5.0) -> None:
        self._window_s = window_s
        self._runs: deque[tuple[float, float]] = deque()

    def add(self, started_s: float, ended_s: float) -> None:
        self._runs.append((started_s, ended_s))
        while self._runs[0][1] < ended_s - self._window_s:
            self._runs.popleft()

    def share(self, now_s: float) -> float:
        """0..1, by the clock of `add`."""
        since_s = now_s - self._window_s
        busy_s = sum(max(0.0, ended_s - max(started_s, since_s)) for started_s, ended_s in list(self._runs))
        return busy_s / self._window_s
