"""Keeps what a monitor tells during a run. No ROS in here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_vision.core.detections import Detections

LEDGER_KEYS = ("received", "inferred", "gated", "rejected", "superseded", "failed", "in_flight")
ERROR = 2
RATE_WINDOW_S = 3.0
AGE_WINDOW = 100


@dataclass(frozen=True, slots=True)
class ReceivedDetections:
    """One Detection2DArray. age_ms: from the image's stamp to its arrival here."""

    stamp_ns: int
    frame_id: str
    found: Detections
    age_ms: float


class RunRecord:
    """A PipelineObserver that records every call. monotonic_s: the clock; tests pass their own."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = monotonic_s
        self.labels: tuple[str, ...] = ()
        self.seen: list[ReceivedDetections] = []
        self.index_of: dict[int, int] = {}
        self.statuses: dict[str, dict[str, str]] = {}
        self.texts: dict[str, str] = {}
        self.levels: dict[str, tuple[int, str]] = {}
        self.first_detection_s: float | None = None
        self.first_frame_s: float | None = None
        self.on_each_picture: Callable[[int, np.ndarray], None] | None = None
        self.errors: dict[str, str] = {}
        self._error_since_s: float | None = None
        self._arrivals: deque[float] = deque()

    def on_detections(self, stamp_ns: int, frame_id: str, found: Detections, age_ms: float) -> None:
        """See PipelineObserver."""
        now_s = self._now_s()
        if self.first_detection_s is None:
            self.first_detection_s = now_s
        self._arrivals.append(now_s)
        self.seen.append(ReceivedDetections(stamp_ns, frame_id, found, age_ms))

    def on_labels(self, labels: tuple[str, ...]) -> None:
        """See PipelineObserver."""
        self.labels = labels

    def on_source(self, stamp_ns: int, index: int) -> None:
        """See PipelineObserver."""
        if self.first_frame_s is None:
            self.first_frame_s = self._now_s()
        self.index_of[stamp_ns] = index

    def on_status(self, node: str, level: int, text: str, values: dict[str, str]) -> None:
        """See PipelineObserver. A value that becomes "unavailable" keeps its last figure."""
        known = {key: value for key, value in values.items() if value != "unavailable"}
        self.texts[node] = text
        if level >= ERROR:
            self.errors[node] = text
            self._error_since_s = self._error_since_s or self._now_s()
        self.statuses[node] = {**values, **self.statuses.get(node, {}), **known}

    def on_diagnostics(self, levels: dict[str, tuple[int, str]]) -> None:
        """See PipelineObserver."""
        self.levels = levels

    def on_debug_image(self, stamp_ns: int, picture: np.ndarray) -> None:
        """See PipelineObserver."""
        if self.on_each_picture:
            self.on_each_picture(stamp_ns, picture)

    @property
    def ledger(self) -> dict[str, int]:
        """The books as last reported; all 0 before the first report."""
        values = self.statuses.get("detector", {})
        return {key: int(values.get(f"ledger.{key}", 0)) for key in LEDGER_KEYS}

    @property
    def reasons(self) -> dict[str, int]:
        """The books in detail: "gated.still" and so on."""
        values = self.statuses.get("detector", {})
        fates = tuple(f"ledger.{fate}." for fate in LEDGER_KEYS)
        return {key[len("ledger.") :]: int(n) for key, n in values.items() if key.startswith(fates)}

    @property
    def played_out(self) -> bool:
        """True once the file is at its end and every frame of it is in the books."""
        source, ledger = self.statuses.get("source", {}), self.ledger
        if source.get("situation") != "finished":
            return False
        return ledger["in_flight"] == 0 and ledger["received"] >= int(source.get("sent", 0))

    def in_error_for_s(self) -> float:
        """Since when a node has reported an error, in s; 0 where none has."""
        return 0.0 if self._error_since_s is None else self._now_s() - self._error_since_s

    def fps_hz(self) -> float:
        """Detections per second over the last seconds."""
        now_s = self._now_s()
        while self._arrivals and now_s - self._arrivals[0] > RATE_WINDOW_S:
            self._arrivals.popleft()
        if self.first_detection_s is None:
            return 0.0
        return len(self._arrivals) / max(0.5, min(RATE_WINDOW_S, now_s - self.first_detection_s))

    def age_ms(self, last: int | None = None) -> dict[str, float] | None:
        """p50, p95 and p99 of all ages, or of the last ones; None where no detection came."""
        ages = [one.age_ms for one in (self.seen[-last:] if last else self.seen)]
        if not ages:
            return None
        return {f"p{p}": float(np.percentile(ages, p)) for p in (50, 95, 99)}

    def by_frame(self) -> dict[int, Detections]:
        """Number of the source's image -> what was found on it, for all whose number is known."""
        return {self.index_of[s.stamp_ns]: s.found for s in self.seen if s.stamp_ns in self.index_of}
