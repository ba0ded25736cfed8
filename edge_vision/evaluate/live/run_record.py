"""Records what PipelineMonitor reports during a run. Imports no ROS."""

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
    objects: Detections
    age_ms: float


class RunRecord:
    """A PipelineObserver that records every call. monotonic_s: the clock; tests pass their own."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = monotonic_s
        self.labels: tuple[str, ...] = ()
        self.detections: list[ReceivedDetections] = []
        self.index_of: dict[int, int] = {}
        self.statuses: dict[str, dict[str, str]] = {}
        self.texts: dict[str, str] = {}
        self.levels: dict[str, tuple[int, str]] = {}
        self.first_detection_s: float | None = None
        self.first_frame_s: float | None = None
        self.errors: dict[str, str] = {}
        self._error_since_s: float | None = None
        self._arrivals: deque[float] = deque()

    def on_detections(self, stamp_ns: int, frame_id: str, found: Detections, age_ms: float) -> None:
        now_s = self._now_s()
        if self.first_detection_s is None:
            self.first_detection_s = now_s
        self._arrivals.append(now_s)
        self.detections.append(ReceivedDetections(stamp_ns, frame_id, found, age_ms))

    def on_tracks(self, stamp_ns: int, found: Detections) -> None:
        """See PipelineObserver. Not recorded here."""

    def on_labels(self, labels: tuple[str, ...]) -> None:
        self.labels = labels

    def on_source(self, stamp_ns: int, index: int) -> None:
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
        self.levels = levels

    def on_gate_event(self, stamp_ns: int, passed: bool, reason: str) -> None:
        """See PipelineObserver. Not recorded here."""

    @property
    def ledger(self) -> dict[str, int]:
        """The frame accounting as last reported; all 0 before the first report."""
        values = self.statuses.get("detector", {})
        return {key: int(values.get(f"ledger.{key}", 0)) for key in LEDGER_KEYS}

    @property
    def reasons(self) -> dict[str, int]:
        """The frame accounting by reason: "gated.still" and so on."""
        values = self.statuses.get("detector", {})
        fates = tuple(f"ledger.{fate}." for fate in LEDGER_KEYS)
        return {key[len("ledger.") :]: int(n) for key, n in values.items() if key.startswith(fates)}

    @property
    def finished(self) -> bool:
        """True once the file has ended and every frame of it is accounted for."""
        source, ledger = self.statuses.get("source", {}), self.ledger
        if source.get("situation") != "finished":
            return False
        return ledger["in_flight"] == 0 and ledger["received"] >= int(source.get("sent", 0))

    def error_duration_s(self) -> float:
        """Time since a node first reported an error; 0 without any."""
        return 0.0 if self._error_since_s is None else self._now_s() - self._error_since_s

    def inferred_hz(self) -> float:
        """Inferred frames per second over the last RATE_WINDOW_S."""
        now_s = self._now_s()
        while self._arrivals and now_s - self._arrivals[0] > RATE_WINDOW_S:
            self._arrivals.popleft()
        if self.first_detection_s is None:
            return 0.0
        return len(self._arrivals) / max(0.5, min(RATE_WINDOW_S, now_s - self.first_detection_s))

    def age_ms(self, last: int | None = None) -> dict[str, float] | None:
        """p50, p95 and p99 of all ages, or of the last ones; None without any."""
        ages = [one.age_ms for one in (self.detections[-last:] if last else self.detections)]
        if not ages:
            return None
        return {f"p{p}": float(np.percentile(ages, p)) for p in (50, 95, 99)}

    def by_frame(self) -> dict[int, Detections]:
        """Frame number of the source -> detections, for all stamps with a known number."""
        return {self.index_of[s.stamp_ns]: s.objects for s in self.detections if s.stamp_ns in self.index_of}
