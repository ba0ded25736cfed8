"""Runs the detection passes that the detector node's parameters ask for."""

from __future__ import annotations

import time
from dataclasses import fields

from edge_vision.core.detections import DetectionResult
from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.detect.detector import Detector
from edge_vision.detect.roi_planner import RoiConfig, RoiPlanner
from edge_vision.nodes.detector.track_publisher import TrackPublisher
from edge_vision.nodes.interface.parameters import Parameters


class RoiDetection:
    """The detection passes of one detector node. Its worker calls `detect`; the others are thread-safe."""

    def __init__(self, tracks: TrackPublisher) -> None:
        self._tracks = tracks
        self._planner = RoiPlanner()
        self._with_low_score = False
        self.reset = self._planner.reset
        self.reset_stats = self._planner.reset_stats
        self.status_values = self._planner.status

    @property
    def needs_tracks(self) -> bool:
        """Whether known objects and the camera's motion are needed."""
        return self._planner.config.roi_mode != "full"

    def configure(self, params: Parameters) -> None:
        """Apply the parameters from the next frame on."""
        self._planner.config = RoiConfig(**{field.name: params[field.name] for field in fields(RoiConfig)})
        self._with_low_score = params["publish_low_score"]

    def detect(
        self, detector: Detector, frame: Frame, event: FrameEvent | None, with_masks: bool = False
    ) -> DetectionResult:
        """Detect objects on a frame, in as many passes as it needs. Raises as `Detector.detect`."""
        mono_ns, spec = time.monotonic_ns(), detector.input_spec
        with_low_score = self._with_low_score
        # The scene costs time to compute, so it is only requested where the plan depends on it.
        known = event if self.needs_tracks else None
        scene = self._tracks.roi_input(frame, known, self._planner.whole_stamp_ns)
        plan = self._planner.plan(scene, (spec.width_px, spec.height_px), mono_ns)
        return self._planner.run(
            plan,
            lambda part: detector.detect(part, with_low_score, with_masks),
            frame,
            detector.thresholds.max_detections,
            mono_ns,
        )
