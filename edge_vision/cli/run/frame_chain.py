"""Gate, cascade, detector and tracker on one frame after another, in the recording's own time.

Each inference ends before the next frame: no frame is superseded, and results do not depend on the machine's
speed. Otherwise as in the nodes, with their defaults.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edge_vision.cascade.cascade import Cascade
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.geometry.zones import NO_ZONES, Zones
from edge_vision.core.stamp_check import StampCheck
from edge_vision.detect.detector import Detector
from edge_vision.detect.report_filter import ReportConfig, ReportFilter
from edge_vision.errors import ImageError
from edge_vision.gate.frame_gate import FORCED, FrameGate, GateConfig
from edge_vision.tracking.tracker import EMPTY_TRACKS, STATIC_SCENE_REASONS
from edge_vision.tracking.tracking_history import TrackingHistory

AUDIT_SEED = 3
"""Every run audits the same frames, and so gives the same results."""
_STAGES = {"inferred": "detector", "rejected": "cascade"}


class FrameResult(NamedTuple):
    """What is published for a frame. detections: None unless inferred. tracks, track_ids: inferred or
    predicted boxes and their ids, (n,) int64; None for a failed frame."""

    event: FrameEvent
    detections: Detections | None = None
    tracks: Detections | None = None
    track_ids: np.ndarray | None = None


class FrameChain:
    """Takes the frames of one camera in their order. cascade: None = off."""

    def __init__(
        self, detector: Detector, config: GateConfig, cascade: Cascade | None = None, zones: Zones = NO_ZONES
    ) -> None:
        self._detector, self._cascade = detector, cascade
        self._report = ReportFilter()
        self._report.configure(ReportConfig(zones=zones), ())
        self._gate = FrameGate(config, seed=AUDIT_SEED)
        self._gate.zones = zones
        if cascade:
            cascade.zones = zones
        self._history = self._gate.shared_tracks = TrackingHistory()
        self._stamps = StampCheck()
        self._seq = 0

    def process(self, frame: Frame, time_ns: int) -> FrameResult:
        """The results of a frame. time_ns: when it was recorded, since the first one; never decreases."""
        self._seq += 1
        fault = self._stamps.check(frame.stamp_ns)
        if fault:
            if fault == "stamp_backwards":
                self._gate.reset("clock_jump")
                self._history.reset(self._seq)
            return FrameResult(self._event(frame, "failed", fault))
        try:
            decision = self._gate.decide(frame, time_ns)
            static = not decision.passed and decision.reason in STATIC_SCENE_REASONS
            self._history.add_frame(frame.stamp_ns, decision.camera_motion, self._seq, static)
            fate, reason = "inferred" if decision.passed else "gated", decision.reason
            if self._cascade and decision.passed and reason not in FORCED:
                verdict = self._cascade.decide(frame, decision.regions, time_ns)
                fate, reason = "inferred" if verdict.accepted else "rejected", verdict.reason
            event = self._event(frame, fate, reason)._replace(
                regions=decision.regions, camera_motion=decision.camera_motion
            )
            return self._inferred(frame, event) if fate == "inferred" else self._predicted(frame, event)
        except ImageError as error:
            return FrameResult(self._event(frame, "failed", error.reason))

    def _event(self, frame: Frame, fate: str, reason: str) -> FrameEvent:
        stage = _STAGES.get(fate, "gate")
        return FrameEvent(frame.stamp_ns, frame.frame_id, stage, fate, reason, seq=self._seq)

    def _inferred(self, frame: Frame, event: FrameEvent) -> FrameResult:
        size_px = frame.width_px, frame.height_px
        result = self._report.apply(self._detector.detect(frame, with_low_score=True), size_px)
        found = result.detections
        ids = self._history.add_detections(frame.stamp_ns, found, size_px)
        self._gate.inferred(frame.stamp_ns, found, result.low_score)
        return FrameResult(event, found, found, ids)

    def _predicted(self, frame: Frame, event: FrameEvent) -> FrameResult:
        tracks = self._history.tracks_at(frame.stamp_ns) or EMPTY_TRACKS
        return FrameResult(event, None, tracks.detections(), tracks.ids)
