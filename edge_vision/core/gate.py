"""The frame gate: lets a frame pass when something new could be seen in it.

It compares a small luma image with that of the last frame that passed, not with the last frame: slow
changes add up until they pass, and a skipped frame never differs much from one that the detector saw.
Whatever it is not sure about passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge_vision.core.frame import Frame

NO_REGIONS = np.zeros((0, 4), np.float32)
MAX_REGIONS = 16


@dataclass(frozen=True, slots=True)
class GateConfig:
    """Settings of the gate. Each is a parameter of the gate node, described there."""

    enabled: bool = True
    max_rate_hz: float = 0.0
    max_blind_ms: float = 2000.0
    max_blind_moving_ms: float = 500.0
    luma_width_px: int = 320
    pixel_threshold: int = 10
    noise_factor: float = 6.0
    min_changed_area: float = 0.0005
    quiet_frames: int = 2
    quiet_ms: float = 60.0
    ego_motion: bool = True
    light_jump: float = 8.0
    max_new_view: float = 0.04
    saturated_area: float = 0.3
    saturated_after_ms: float = 1000.0
    saturated_interval_ms: float = 60.0
    max_gap_ms: float = 1000.0
    audit_rate: float = 0.01
    audit_max_hz: float = 1.0
    max_miss_rate: float = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class GateDecision:
    """What the gate decided and why. regions: (n, 4) float32 xyxy_px of what changed."""

    passed: bool
    reason: str
    regions: np.ndarray
    camera_motion: np.ndarray | None = None


class FrameGate:
    """Decides frame by frame. Pure: time comes in as an argument, one caller at a time.

    Reasons to pass: disabled, first, size_changed, refresh, motion, or the reason given to `reset`.
    Reasons to skip: rate_limit, still.
    """

    def __init__(self, config: GateConfig | None = None) -> None:
        self.config = config or GateConfig()
        self._reference: np.ndarray | None = None
        self._size_px = (0, 0)
        self._passed_stamp_ns = 0
        self._passed_mono_ns = 0
        self._must_pass = "first"

    def reset(self, reason: str) -> None:
        """Forget the reference: the next frame passes for this reason (a clock jump, a new model)."""
        self._reference = None
        self._must_pass = reason

    def decide(self, frame: Frame, mono_ns: int) -> GateDecision:
        """Judge a frame that came at the monotonic time mono_ns."""
        config = self.config
        if not config.enabled:
            self.reset("first")
            return GateDecision(True, "disabled", NO_REGIONS)
        unconditional = self._unconditional_reason(frame, mono_ns)
        if unconditional is None and self._too_soon(frame, mono_ns):
            return GateDecision(False, "rate_limit", NO_REGIONS)
        luma = frame.small_gray(min(config.luma_width_px, frame.width_px))
        if unconditional:
            return self._pass(frame, mono_ns, luma, unconditional, NO_REGIONS)
        regions = self._changed_regions(luma, frame)
        if len(regions) == 0:
            return GateDecision(False, "still", NO_REGIONS)
        return self._pass(frame, mono_ns, luma, "motion", regions)

    def _unconditional_reason(self, frame: Frame, mono_ns: int) -> str | None:
        if self._reference is None:
            return self._must_pass
        if (frame.width_px, frame.height_px) != self._size_px:
            return "size_changed"
        # Blind time is the longer of the two clocks: a stamp that stands still must not blind anybody.
        blind_ns = max(mono_ns - self._passed_mono_ns, frame.stamp_ns - self._passed_stamp_ns)
        return "refresh" if blind_ns >= self.config.max_blind_ms * 1e6 else None

    def _too_soon(self, frame: Frame, mono_ns: int) -> bool:
        if self.config.max_rate_hz <= 0.0:
            return False
        # 2 % early counts as in time: a 30 Hz camera limited to 10 Hz must give 10 Hz, not 7.5.
        period_ns = 0.98e9 / self.config.max_rate_hz
        return max(mono_ns - self._passed_mono_ns, frame.stamp_ns - self._passed_stamp_ns) < period_ns

    def _changed_regions(self, luma: np.ndarray, frame: Frame) -> np.ndarray:
        """(n, 4) xyxy_px boxes around what differs from the reference; empty where too little does."""
        reference = self._reference
        if reference is None or reference.shape != luma.shape:
            return np.array([[0, 0, frame.width_px, frame.height_px]], np.float32)
        mask = cv2.threshold(
            cv2.absdiff(luma, reference), self.config.pixel_threshold, 255, cv2.THRESH_BINARY
        )[1]
        if cv2.countNonZero(mask) < max(1.0, self.config.min_changed_area * mask.size):
            return NO_REGIONS
        return _boxes(mask, frame.width_px, frame.height_px)

    def _pass(
        self, frame: Frame, mono_ns: int, luma: np.ndarray, reason: str, regions: np.ndarray
    ) -> GateDecision:
        self._reference = luma
        self._size_px = (frame.width_px, frame.height_px)
        self._passed_stamp_ns = frame.stamp_ns
        self._passed_mono_ns = mono_ns
        return GateDecision(True, reason, regions)


_JOIN = np.ones((7, 7), np.uint8)


def _boxes(mask: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """Boxes of the blobs of a mask in source pixels; one box around all when there are too many."""
    # Dilation joins the edges of one moving thing, and gives each box a margin.
    joined = cv2.dilate(mask, _JOIN)
    # Outer contours give the boxes of the blobs in a tenth of the time of connectedComponentsWithStats.
    contours = cv2.findContours(joined, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    xyxy = np.array([cv2.boundingRect(contour) for contour in contours], np.float32)
    xyxy[:, 2:] += xyxy[:, :2]
    if len(xyxy) > MAX_REGIONS:
        xyxy = np.concatenate([xyxy[:, :2].min(0), xyxy[:, 2:].max(0)])[None]
    scale = np.array([width_px / mask.shape[1], height_px / mask.shape[0]] * 2, np.float32)
    return xyxy * scale
