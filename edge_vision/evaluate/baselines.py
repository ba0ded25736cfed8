"""The baselines: fixed intervals, OpenCV's MOG2 and a running average; and camera motion for their tracker.

The scores of the motion baselines do not depend on what passes, so one run serves all thresholds: frames are
selected afterwards, with the same bound on blind time as our gate.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from time import perf_counter, thread_time

import cv2
import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.geometry.homography import scaled
from edge_vision.gate.image_evidence import ImageEvidence

LUMA_WIDTH_PX = 320
_DILATION = np.ones((3, 3), np.uint8)
INTERVALS = range(2, 31)
MOG2_AREAS = (1, 4, 16, 64)
"""MOG2 passes a frame if its foreground reaches this multiple of MOG2_MIN_AREA."""
MOG2_MIN_AREA = 0.0005
"""A share of the picture."""


def every(n: int, frames: int) -> np.ndarray:
    """(frames,) bool: the first frame and every n-th after it."""
    return np.arange(frames) % n == 0


def evenly(n_inferred: int, frames: int) -> np.ndarray:
    """(frames,) bool: so many frames at equal distances, the first one among them."""
    inferred = np.zeros(frames, bool)
    inferred[np.arange(n_inferred) * frames // max(1, n_inferred)] = True
    return inferred


def bounded(moved: np.ndarray, stamps_ns: np.ndarray, max_blind_ms: float) -> np.ndarray:
    """(n,) bool: the first frame, frames with motion, and one whenever none passed for max_blind_ms."""
    passed = moved.copy()
    last_ns = -(10**18)
    for at, stamp_ns in enumerate(stamps_ns.tolist()):
        if passed[at] or stamp_ns - last_ns >= max_blind_ms * 1e6:
            passed[at] = True
            last_ns = stamp_ns
    return passed


@dataclass(slots=True, eq=False)
class BaselineRecord:
    """One entry per frame. scores: changed share of the image, or 1.0 for motion; ms, cpu_s: their cost."""

    scores: list[float] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)


class MotionBaseline(ABC):
    """Scores each frame, whatever passes."""

    def __init__(self) -> None:
        self.record = BaselineRecord()

    def process(self, frame: Frame, *_: Detections) -> None:
        """Score a frame and record the result."""
        started, cpu = perf_counter(), thread_time()
        score = self._score(frame)
        self.record.ms.append((perf_counter() - started) * 1e3)
        self.record.cpu_s.append(thread_time() - cpu)
        self.record.scores.append(score)

    @abstractmethod
    def _score(self, frame: Frame) -> float: ...


class Mog2(MotionBaseline):
    """OpenCV's MOG2 with its defaults, on the same luma as our gate; shadows do not count as foreground.

    Z. Zivkovic (2004), "Improved adaptive Gaussian mixture model for background subtraction".
    """

    def __init__(self) -> None:
        super().__init__()
        self._model = cv2.createBackgroundSubtractorMOG2()

    def _score(self, frame: Frame) -> float:
        mask = self._model.apply(frame.small_gray(min(LUMA_WIDTH_PX, frame.width_px)))
        return float(np.count_nonzero(mask == 255)) / mask.size


class CameraMotionEstimator:
    """Camera motion from frame to frame, for a tracker without a gate: our gate's evidence and luma size.

    motions: (3, 3) float64 per frame, source pixels; None if it cannot be estimated, and for the first frame.
    cpu_s: of all frames.
    """

    def __init__(self) -> None:
        self.motions: list[np.ndarray | None] = []
        self.cpu_s = 0.0
        self._evidence = ImageEvidence()

    def process(self, frame: Frame, *_: Detections) -> None:
        """Estimate and record the motion to the next frame."""
        started = thread_time()
        luma = frame.small_gray(min(LUMA_WIDTH_PX, frame.width_px))
        motion = self._evidence.observe(luma).camera_motion
        first = not self.motions
        self.motions.append(
            None if first or motion is None else scaled(motion, frame.width_px // luma.shape[1])
        )
        self.cpu_s += thread_time() - started


@dataclass(frozen=True, slots=True)
class AverageVariant:
    """What the published defaults leave open.

    open_while_calibrating: frames count as motion during calibration. starts_calibrating: if false, the first
    frame is the initial average. calm_frames: calibration ends after this many frames in a row with less than
    5 % motion; 0: the current frame becomes the new average at once.
    """

    open_while_calibrating: bool
    starts_calibrating: bool
    calm_frames: int


AVERAGE_VARIANTS = {
    "running_average_a": AverageVariant(True, False, 0),
    "running_average_b": AverageVariant(False, True, 1),
    "running_average_c": AverageVariant(False, True, 30),
}


class RunningAverage(MotionBaseline):
    """Motion against a running average of the frames, with the defaults that Frigate publishes.

    Height 100, difference 30, contours of 10 px, alpha 0.01, recalibration above 80 %. How calibration starts
    and ends is not published: the variants are ours, and make no claim about Frigate.
    """

    HEIGHT_PX = 100
    DIFFERENCE = 30
    CONTOUR_PX = 10
    ALPHA = 0.01
    CALIBRATION_ALPHA = 0.2
    RECALIBRATE = 0.8
    CALM = 0.05

    def __init__(self, variant: AverageVariant) -> None:
        super().__init__()
        self._variant = variant
        self._calibrating = variant.starts_calibrating
        self._calm = 0
        self._average: np.ndarray | None = None

    def _score(self, frame: Frame) -> float:
        gray = frame.gray()
        size = (max(1, round(gray.shape[1] * self.HEIGHT_PX / gray.shape[0])), self.HEIGHT_PX)
        small = cv2.resize(gray, size, interpolation=cv2.INTER_LINEAR)
        if self._average is None:
            self._average = small.astype(np.float32)
        delta = cv2.absdiff(small, cv2.convertScaleAbs(self._average))
        mask = cv2.dilate(cv2.threshold(delta, self.DIFFERENCE, 255, cv2.THRESH_BINARY)[1], _DILATION)
        share = float(np.count_nonzero(mask)) / mask.size
        contours = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
        moved = any(cv2.contourArea(contour) > self.CONTOUR_PX for contour in contours)
        calibrating = self._calibrate(share, small)
        alpha = self.CALIBRATION_ALPHA if calibrating else self.ALPHA
        cv2.accumulateWeighted(small, self._average, alpha)
        return float(self._variant.open_while_calibrating if calibrating else moved)

    def _calibrate(self, share: float, small: np.ndarray) -> bool:
        """Update the calibration state; whether this frame belongs to a calibration."""
        if share > self.RECALIBRATE:
            if self._variant.calm_frames == 0:
                self._average = small.astype(np.float32)
                return True
            self._calibrating, self._calm = True, 0
        if not self._calibrating:
            return False
        self._calm = self._calm + 1 if share < self.CALM else 0
        self._calibrating = self._calm < self._variant.calm_frames
        return True
