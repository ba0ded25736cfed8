"""How the detector node looks at its frames, as its parameters say, and what that took."""

from __future__ import annotations

import time
from dataclasses import astuple, fields

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.detect.detector import Detector, StageTiming
from edge_vision.detect.roi_planner import RoiConfig, RoiPlanner
from edge_vision.nodes.interface.parameters import Parameters
from edge_vision.nodes.track_publisher import TrackPublisher


class RoiDetection:
    """The looks of one detector node. Its worker looks; the others may be called by any thread."""

    def __init__(self, tracked: TrackPublisher) -> None:
        self._tracked = tracked
        self._looks = RoiPlanner()
        self.runs = 1
        """Runs of the model that the frame in work takes at most."""
        self.timing = StageTiming()
        """What the last frame took, all its runs together."""
        self.top_score: float | None = None
        """The highest score on the last frame, below the threshold too."""
        self.low_score: Detections | None = None
        """Low-score detections of the last frame; None unless it was inferred whole, in one inference."""
        self.reset = self._looks.reset
        self.reset_stats = self._looks.reset_stats
        self.status_values = self._looks.status

    @property
    def follows(self) -> bool:
        """Whether known objects and the camera's motion are needed."""
        return self._looks.config.roi_mode != "full"

    def configure(self, params: Parameters) -> None:
        """Take up the parameters."""
        self._looks.config = RoiConfig(**{field.name: params[field.name] for field in fields(RoiConfig)})

    def look(self, detector: Detector, frame: Frame, tick: FrameEvent | None) -> Detections:
        """What is on a frame. Raises what `Detector.detect` raises."""
        now_ns, spec = time.monotonic_ns(), detector.input_spec
        # What is told of the frame is only asked for where it decides something.
        scene = self._tracked.scene(frame, tick if self.follows else None, self._looks.whole_stamp_ns)
        look = self._looks.choose(scene, (spec.width_px, spec.height_px), now_ns)
        self.runs = look.most_runs
        timings, tops = [], []

        def detect(part: Frame) -> Detections:
            found = detector.detect(part)
            timings.append(astuple(detector.timing))
            tops.append(detector.top_score)
            return found

        found = self._looks.carry_out(look, detect, frame, detector.thresholds.max_detections, now_ns)
        self.timing = StageTiming(*(sum(stage) for stage in zip(*timings, strict=True)))
        self.low_score = detector.low_score if len(timings) == 1 and look.whole else None
        self.top_score = max((top for top in tops if top is not None), default=None)
        return found
