"""Gate, detector and tracker on one frame after another, in the recording's own time.

Each inference ends before the next frame: no frame is superseded, and results do not depend on the machine's
speed. Otherwise as in the nodes, with their defaults.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.stamp_check import StampCheck
from edge_vision.detect.detector import Detector
from edge_vision.errors import ImageError
from edge_vision.gate.frame_gate import FrameGate, GateConfig
from edge_vision.tracking.tracker import EMPTY_TRACKS, STATIC_SCENE_REASONS
from edge_vision.tracking.tracking_history import TrackingHistory

AUDIT_SEED = 3
"""Every run audits the same frames, and so gives the same results."""


class FrameResult(NamedTuple):
    """What is published for a frame. detections: None unless inferred. tracks, track_ids: inferred or
    predicted boxes and their ids, (n,) int64; None for a failed frame."""

    event: FrameEvent
    detections: Detections | None = None
    tracks: Detections | None = None
    track_ids: np.ndarray | None = None


class FrameChain:
    """Takes the frames of one camera in their order."""

    def __init__(self, detector: Detector, config: GateConfig) -> None:
        self._detector = detector
        self._gate = FrameGate(config, seed=AUDIT_SEED)
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
            fate = "inferred" if decision.passed else "gated"
            event = self._event(frame, fate, decision.reason)._replace(
                regions=decision.regions, camera_motion=decision.camera_motion
            )
            return self._inferred(frame, event) if decision.passed else self._predicted(frame, event)
        except ImageError as error:
            return FrameResult(self._event(frame, "failed", error.reason))

    def _event(self, frame: Frame, fate: str, reason: str) -> FrameEvent:
        stage = "detector" if fate == "inferred" else "gate"
        return FrameEvent(frame.stamp_ns, frame.frame_id, stage, fate, reason, seq=self._seq)

    def _inferred(self, frame: Frame, event: FrameEvent) -> FrameResult:
        result = self._detector.detect(frame, with_low_score=True)
        found = result.detections
        ids = self._history.add_detections(frame.stamp_ns, found, (frame.width_px, frame.height_px))
        self._gate.inferred(frame.stamp_ns, found, result.low_score)
        return FrameResult(event, found, found, ids)

    def _predicted(self, frame: Frame, event: FrameEvent) -> FrameResult:
        tracks = self._history.tracks_at(frame.stamp_ns) or EMPTY_TRACKS
        return FrameResult(event, None, tracks.detections(), tracks.ids)
