"""Latencies and counts of the detector node."""

from __future__ import annotations

from typing import Any

from edge_vision.core.detections import DetectionResult
from edge_vision.core.latency import LatencyWindow
from edge_vision.diagnostics.causes.frames import FOREIGN_CLOCK_MS
from edge_vision.nodes.base_node import latency_values

TIMINGS = ("preprocess_ms", "inference_ms", "postprocess_ms")
LATENCIES = (*TIMINGS, "wait_ms", "age_ms")


class DetectorStats:
    """The worker records; the executor reads."""

    def __init__(self) -> None:
        self._windows = {name: LatencyWindow() for name in LATENCIES}
        self._last_count = self._total = 0
        self._top_score: float | None = None
        self._last_age_ms = 0.0

    def record(self, result: DetectionResult, age_ms: float) -> None:
        """The result of a frame, of this age when it was published."""
        top = result.top_score
        self._top_score = top if self._top_score is None else max(self._top_score, top or 0.0)
        for name in TIMINGS:
            self._windows[name].add(getattr(result.timing, name))
        if abs(age_ms - self._last_age_ms) > FOREIGN_CLOCK_MS:  # A clock has jumped.
            self._windows["age_ms"].reset()
        self._last_age_ms = age_ms
        self._windows["age_ms"].add(age_ms)

    def record_wait(self, waited_s: float) -> None:
        """A frame is next, this long after the first frame since the previous one arrived."""
        self._windows["wait_ms"].add(waited_s * 1e3)

    def count(self, detections: int) -> None:
        """A frame with this many detections was published."""
        self._last_count = detections
        self._total += detections

    @property
    def median_inference_ms(self) -> float | None:
        """None before the first inference."""
        percentiles = self._windows["inference_ms"].percentiles()
        return percentiles["p50"] if percentiles else None

    def values(self) -> dict[str, Any]:
        """Status values. top_score: the highest since the previous call."""
        top_score, self._top_score = self._top_score, None
        values = {"last_count": self._last_count, "detections_total": self._total, "top_score": top_score}
        for name, window in self._windows.items():
            values.update(latency_values(name, window))
        return values

    def reset(self) -> None:
        for window in self._windows.values():
            window.reset()
