"""Rates, latencies, failures and silence of one stage."""

from __future__ import annotations

from collections import deque
from typing import Any

from edge_vision.core.latency import LatencyWindow, RateMeter
from edge_vision.core.running_clock import running_s
from edge_vision.nodes.base_node import ERROR, WARN, latency_values

RECENT_S = 3.0
"""How long a failure is reported in the status, and after which silence is."""


class StageStats:
    """Any thread may record; the executor reads."""

    def __init__(self) -> None:
        self.rate_in, self.rate_out = RateMeter(), RateMeter()
        self.process_ms = LatencyWindow()
        # Of the two newest images: a clock may jump between an image and the report, or just before an image.
        self._input_ages_ms: deque[float] = deque(maxlen=2)
        self._arrived_s, self._succeeded_s = 0.0, 0.0
        self._failed_s, self._failure = float("-inf"), ""
        self._busy_since_s: float | None = None

    def restart_silence(self) -> None:
        """Measure the time without an image from now."""
        self._arrived_s = running_s()

    def record_arrival(self) -> None:
        """A frame has arrived."""
        self.rate_in.count()
        self._arrived_s = running_s()

    def record_age(self, age_ms: float) -> None:
        """A frame of this age has entered the chain."""
        self._input_ages_ms.append(age_ms)

    def record_failure(self, text: str) -> None:
        """A frame has failed."""
        self._failed_s, self._failure = running_s(), text

    def start_work(self) -> float:
        """The worker starts on a frame. Returns the time to pass to `record_success` and `finish_work`."""
        started_s = self._busy_since_s = running_s()
        return started_s

    def record_success(self, started_s: float) -> None:
        """The work that started then has succeeded."""
        self._succeeded_s = started_s

    def finish_work(self, started_s: float) -> None:
        """The work that started then is over; ignored if another worker has taken over meanwhile."""
        if self._busy_since_s == started_s:
            self.process_ms.add((running_s() - started_s) * 1e3)
            self._busy_since_s = None

    @property
    def silent_s(self) -> float:
        """Time since the last frame arrived."""
        return running_s() - self._arrived_s

    @property
    def silent(self) -> bool:
        """True if no frame has arrived for longer than a camera's gaps."""
        return self.silent_s > RECENT_S

    @property
    def recent_failure(self) -> tuple[int, str] | None:
        """Level and text of a failure within the last 3 s: a warning if a frame has succeeded since."""
        if running_s() - self._failed_s >= RECENT_S:
            return None
        return (WARN if self._succeeded_s > self._failed_s else ERROR), self._failure

    def values(self) -> dict[str, Any]:
        busy_since_s = self._busy_since_s
        return {
            "rate_in_hz": self.rate_in.read_hz(),
            "rate_out_hz": self.rate_out.read_hz(),
            "input_age_ms": min(tuple(self._input_ages_ms), key=abs, default=None),
            "busy_ms": (running_s() - busy_since_s) * 1e3 if busy_since_s else 0.0,
            "last_failure": self._failure,
            **latency_values("process_ms", self.process_ms),
        }
