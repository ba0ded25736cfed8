"""Chooses the detection passes for a frame: the whole frame, crops around regions of interest, or both.

An empty result must always mean that the scene is empty. Crops therefore replace the whole frame only if they
cover everything that can have changed: all regions from the gate and all known objects, while the camera
still shows the scene of the last full-frame pass and that pass is recent. An object that extends beyond the
crops gets one more crop.

A full-frame pass misses small objects that a crop shows, and would end their tracks. It is therefore combined
with the crops around them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

from edge_vision.core.detections import NO_TIMING, DetectionResult, Detections
from edge_vision.core.frame import Frame
from edge_vision.core.geometry.homography import overlap
from edge_vision.detect.crop_budget import CropBudget
from edge_vision.detect.crops import detect_on_crops, enclosing_boxes, merge_detections, plan_crops, uncovered
from edge_vision.tracking.kalman import is_identity

MIN_VIEW_OVERLAP = 0.97
"""Share of the view of the last full-frame pass that must still be visible."""
AUTO_COST = 1.25
"""Highest cost of the crops, in full-frame passes, at which "auto" uses them. The ratio is measured on frames
that had both, because the machine's load changes from frame to frame."""
COST_WINDOW = 15
MIN_COST_SAMPLES = 3

NO_CROPS = np.zeros((0, 4), int)


@dataclass(frozen=True, slots=True)
class RoiConfig:
    """Settings; each is a parameter of the detector node and documented there."""

    roi_mode: str = "full"
    max_crops: int = 2
    budget_ms: float = 0.0
    min_crop_px: int = 0
    full_frame_interval_ms: float = 1000.0


@dataclass(frozen=True, slots=True, eq=False)
class RoiInput:
    """What is known about a frame before inference.

    size_px: width and height. regions: (n, 4) xyxy_px that the gate reports as changed; none if it reports no
    regions. known: (n, 4) xyxy_px, the known objects. since_whole: (3, 3), the camera's motion since the last
    full-frame pass in source pixels; None if unknown.
    """

    size_px: tuple[int, int]
    regions: np.ndarray
    known: np.ndarray
    since_whole: np.ndarray | None


@dataclass(frozen=True, slots=True, eq=False)
class RoiPlan:
    """Detection passes for one frame.

    crops: (k, 4) int xyxy_px. reason: why the whole frame is inferred, "" if it is not. shape: aspect ratio
    and minimum width of an additional crop.
    """

    crops: np.ndarray
    reason: str
    shape: tuple[float, int] = (1.0, 1)

    @property
    def whole(self) -> bool:
        """Whether the whole frame is inferred."""
        return bool(self.reason)


class RoiPlanner:
    """Plans and runs the detection passes of one detector. One caller at a time, except for `reset`."""

    def __init__(self, config: RoiConfig | None = None) -> None:
        self._config = config or RoiConfig()
        self._budget = CropBudget(self._config.max_crops, self._config.budget_ms)
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._last = ""
        self._whole_ms: deque[float] = deque(maxlen=COST_WINDOW)
        self._crop_ms: deque[float] = deque(maxlen=COST_WINDOW)
        # Cost of a crop, in full-frame passes, on frames that had both.
        self._ratios: deque[float] = deque(maxlen=COST_WINDOW)
        self.reset()

    @property
    def config(self) -> RoiConfig:
        """The settings; a new value takes effect on the next frame."""
        return self._config

    @config.setter
    def config(self, config: RoiConfig) -> None:
        self._config = config
        self._budget.max_crops, self._budget.budget_ms = config.max_crops, config.budget_ms

    def reset(self) -> None:
        """Infer the whole next frame: after a cut, or with another model or camera."""
        self._whole_stamp_ns: int | None = None
        self._whole_ns = 0

    @property
    def whole_stamp_ns(self) -> int | None:
        """Stamp of the frame of the last full-frame pass; None if there was none since `reset`."""
        return self._whole_stamp_ns

    def plan(self, scene: RoiInput, model_px: tuple[int, int], mono_ns: int) -> RoiPlan:
        """The detection passes for a frame. model_px: the model's input width and height."""
        config = self._config
        if config.roi_mode == "full":
            return RoiPlan(NO_CROPS, "mode")
        if len(scene.regions) == 0:
            return RoiPlan(NO_CROPS, "no_regions")
        aspect, min_width_px = model_px[0] / model_px[1], config.min_crop_px or model_px[0]
        wanted = np.concatenate((scene.regions, scene.known), dtype=np.float64)
        max_crops = 1 if config.roi_mode == "auto" else self._budget.limit
        crops = plan_crops(wanted, scene.size_px, aspect, min_width_px, max_crops)
        if crops is None:
            return RoiPlan(NO_CROPS, "large")
        reason = self._full_frame_reason(scene, mono_ns)
        if not reason and config.roi_mode == "auto" and not self._pays_off(len(crops)):
            return RoiPlan(NO_CROPS, "cost")
        return RoiPlan(crops, reason, (aspect, min_width_px))

    def _pays_off(self, crops: int) -> bool:
        """False if the crops were measured to cost more than the whole frame."""
        return len(self._ratios) < MIN_COST_SAMPLES or crops * median(self._ratios) <= AUTO_COST

    def _full_frame_reason(self, scene: RoiInput, mono_ns: int) -> str:
        """Why the last full-frame pass is no longer valid outside the crops; "" if it is."""
        if self._whole_stamp_ns is None:
            return "first"
        if scene.since_whole is None:
            return "camera_unknown"
        if _view_overlap(scene.since_whole, scene.size_px) < MIN_VIEW_OVERLAP:
            return "camera_moved"
        return "due" if mono_ns - self._whole_ns >= self._config.full_frame_interval_ms * 1e6 else ""

    def run(
        self,
        plan: RoiPlan,
        detect: Callable[[Frame], DetectionResult],
        frame: Frame,
        max_detections: int,
        mono_ns: int,
    ) -> DetectionResult:
        """Run the passes of a plan and merge their results. Raises what `detect` raises.

        The timing is the sum over all passes. Low-score detections are only available for a full-frame pass
        without crops.
        """
        passes: list[DetectionResult] = []

        def run_pass(part: Frame) -> Detections:
            passes.append(detect(part))
            return passes[-1].detections

        started = perf_counter()
        found, runs, reason = self._run_crops(plan, run_pass, frame)
        if reason:
            found.append(self._run_whole(run_pass, frame, mono_ns))
            if runs and self._whole_ms[-1] > 0.0:
                self._ratios.append(self._crop_ms[-1] / self._whole_ms[-1])
        if runs:
            self._budget.add(runs + bool(reason), (perf_counter() - started) * 1e3)
        self._count(runs, reason)
        return _merged(found, passes, max_detections)

    def _run_crops(
        self, plan: RoiPlan, detect: Callable[[Frame], Detections], frame: Frame
    ) -> tuple[list[Detections], int, str]:
        """Results per crop, the number of inferences, and why the whole frame is inferred ("" if not)."""
        if not len(plan.crops):
            return [], 0, plan.reason
        started, reason = perf_counter(), plan.reason
        found, cut = detect_on_crops(detect, frame, plan.crops)
        if len(cut) and not plan.whole:
            more, cut = self._extend(plan, detect, frame, found, cut)
            found += more
            reason = "cut" if len(cut) else ""
        self._crop_ms.append((perf_counter() - started) * 1e3 / len(found))
        return found, len(found), reason

    def _extend(
        self,
        plan: RoiPlan,
        detect: Callable[[Frame], Detections],
        frame: Frame,
        found: list[Detections],
        cut: Detections,
    ) -> tuple[list[Detections], Detections]:
        """Infer one more crop around objects that the crops cut.

        Returns its results, and what it cuts too: only the whole frame is large enough for that.
        """
        crop = plan_crops(enclosing_boxes(cut), (frame.width_px, frame.height_px), *plan.shape, 1)
        if crop is None:
            return [], cut
        more, beyond = detect_on_crops(detect, frame, crop)
        self._counts["followed"] += 1
        return more, uncovered(beyond, [*found, *more])

    def _run_whole(self, detect: Callable[[Frame], Detections], frame: Frame, mono_ns: int) -> Detections:
        started = perf_counter()
        detections = detect(frame)
        self._whole_ms.append((perf_counter() - started) * 1e3)
        self._whole_ns, self._whole_stamp_ns = mono_ns, frame.stamp_ns
        return detections

    def _count(self, crops: int, reason: str) -> None:
        self._last = ("both" if crops else "whole") if reason else "crops"
        self._counts.update({self._last: 1, "runs": crops + bool(reason), "crop_runs": crops})
        if reason:
            self._reasons[reason] += 1

    def status(self) -> dict[str, object]:
        """Counts of frames by kind of pass, the limit on crops, and the cost of a pass, as flat keys."""
        return {
            "roi.last": self._last,
            "roi.frames_whole": self._counts["whole"],
            "roi.frames_crops": self._counts["crops"],
            "roi.frames_both": self._counts["both"],
            "roi.runs": self._counts["runs"],
            "roi.crops": self._counts["crop_runs"],
            "roi.followed": self._counts["followed"],
            **{f"roi.whole.{reason}": n for reason, n in sorted(self._reasons.items())},
            "roi.limit": self._budget.limit,
            "roi.halved": self._budget.halved,
            "roi.restored": self._budget.restored,
            "roi.whole_ms": median(self._whole_ms) if self._whole_ms else None,
            "roi.crop_ms": median(self._crop_ms) if self._crop_ms else None,
        }

    def reset_stats(self) -> None:
        """Reset the counts; the measured cost of a pass stays."""
        self._counts.clear()
        self._reasons.clear()


def _merged(
    found: list[Detections], passes: Sequence[DetectionResult], max_detections: int
) -> DetectionResult:
    """The result of a frame from the detections of its crops, and the results of all passes."""
    scores = [one.top_score for one in passes if one.top_score is not None]
    timing = sum((one.timing for one in passes), NO_TIMING)
    only = len(found) == 1 and found[0] is passes[0].detections
    return DetectionResult(
        found[0] if only else merge_detections(found, max_detections),
        timing,
        max(scores, default=None),
        passes[0].low_score if only else None,
        next((one.mask_error for one in passes if one.mask_error), ""),
    )


def _view_overlap(motion: np.ndarray, size_px: tuple[int, int]) -> float:
    """Share of the image that still shows what was visible before the camera moved."""
    if is_identity(motion):
        return 1.0
    return overlap(motion, (size_px[1], size_px[0])) if np.isfinite(motion).all() else 0.0
