"""The gate as a scheduler: bounds that hold whatever is seen, then the schedule of `scheduler.py`."""

from __future__ import annotations

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.gate.image_evidence import ImageEvidence
from edge_vision.gate.policy import RATE_SLACK, GateConfig
from edge_vision.gate.scheduler import SCHEDULED_SKIPS, Promise, Scheduler
from edge_vision.tracking.tracking_history import TrackingHistory


class ScheduledGate:
    """Decides frame by frame, and learns from the detector's results. Not thread-safe."""

    def __init__(self) -> None:
        self._evidence = ImageEvidence()
        self._scheduler = Scheduler()
        self._tracks = TrackingHistory()
        self._frames = 0
        self._last_ns = self._passed_ns = (0, 0)
        self.reset("first")

    def reset(self, reason: str) -> None:
        """Pass the next frame for this reason, without a comparison with the frames before."""
        self._must_pass = reason
        self._evidence.forget()
        self._scheduler.restart()
        self._tracks.reset(self._frames)

    def decide(
        self, config: GateConfig, luma: np.ndarray, scale: float, stamp_ns: int, mono_ns: int
    ) -> tuple[str, np.ndarray | None]:
        """The reason to pass or to skip a frame, and the camera's motion since the frame before.

        luma: (h, w) uint8. scale: source pixels per pixel of it. The motion is (3, 3) in source pixels, None
        where it is unknown, as after a cut. Call `passed` where the frame passes.
        """
        jump = self._jump(config, stamp_ns, mono_ns)
        if jump and not self._must_pass:
            self.reset(jump)
        self._last_ns = (stamp_ns, mono_ns)
        evidence = self._evidence.observe(luma)
        forced, self._must_pass = self._must_pass, ""
        reason = self._scheduler.decide(_promise(config), evidence, stamp_ns)
        motion = None if forced or evidence.camera_motion is None else _scaled(evidence.camera_motion, scale)
        static = reason == "still"
        self._tracks.add_frame(stamp_ns, motion, self._frames, static)
        self._frames += 1
        self._cut = evidence.cut or bool(forced)
        return forced or self._bounded(config, reason, stamp_ns, mono_ns), motion

    def passed(self, config: GateConfig, stamp_ns: int, mono_ns: int) -> None:
        """The frame decided last is inferred."""
        self._passed_ns = (stamp_ns, mono_ns)
        self._evidence.mark_inferred()
        self._scheduler.inferring(_promise(config), stamp_ns, self._cut)

    def observe(
        self, stamp_ns: int, found: Detections, low_score: Detections | None, size_px: tuple[int, int]
    ) -> None:
        """Take what the detector found on a frame that passed."""
        tracks = self._tracks.tracks_at(stamp_ns)
        predicted = None if tracks is None else tracks.detections()
        self._scheduler.observe(stamp_ns, found, low_score, predicted)
        self._tracks.add_detections(stamp_ns, found, size_px)

    def status(self) -> dict[str, object]:
        """Flat figures for the gate's status."""
        return dict(self._scheduler.status())

    def _jump(self, config: GateConfig, stamp_ns: int, mono_ns: int) -> str:
        if self._last_ns == (0, 0):
            return ""
        stamp_step_ns, mono_step_ns = stamp_ns - self._last_ns[0], mono_ns - self._last_ns[1]
        if stamp_step_ns < 0 or stamp_step_ns - mono_step_ns > config.max_gap_ms * 1e6:
            return "clock_jump"
        return "stream_gap" if mono_step_ns > config.max_gap_ms * 1e6 else ""

    def _bounded(self, config: GateConfig, reason: str, stamp_ns: int, mono_ns: int) -> str:
        """Apply the bounds on blindness and rate, by whichever clock shows the longer time."""
        since_ns = max(stamp_ns - self._passed_ns[0], mono_ns - self._passed_ns[1])
        if since_ns >= config.max_blind_ms * 1e6:
            return "refresh" if reason in SCHEDULED_SKIPS else reason
        if config.max_rate_hz > 0.0 and since_ns < RATE_SLACK * 1e9 / config.max_rate_hz:
            return "rate_limit"
        return reason


def _promise(config: GateConfig) -> Promise:
    return Promise(config.max_delay_ms, config.min_fidelity, config.max_blind_ms)


def _scaled(motion: np.ndarray, scale: float) -> np.ndarray:
    """A translation in luma pixels as one in source pixels."""
    if scale == 1.0 or (motion[0, 2] == 0.0 == motion[1, 2]):
        return motion
    scaled = motion.copy()
    scaled[:2, 2] *= scale
    return scaled
