"""How the detector looks at a frame: as a whole, on crops around what is new and what is known, or both.

A result must mean the same however it came to be: nothing told means nothing there. So crops stand for the
frame only where they show all that can have changed: every region that the gate gives and every known object,
before a camera that shows the scene of the last whole look, which is not long ago. Else the whole frame is
looked at. Where something goes on beyond the crops, there is a look around it as well.

A whole look sees less of small objects than a close one, and would end those that only crops can see; so it
comes with the crops around them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.geometry.homography import overlap
from edge_vision.detect.crop_budget import CropBudget
from edge_vision.detect.crops import around, detect_on, merged, plan_crops, uncovered
from edge_vision.tracking.kalman import is_still

# Share of the picture of the last whole look that the camera must still show.
MIN_SAME_VIEW = 0.97
# Crops may cost this much more than the whole frame for "auto" to take them: each is a run of the model. They
# are compared where one frame had both, because the load of a machine changes from frame to frame.
AUTO_COST = 1.25
MEASURED = 15
MIN_MEASURED = 3

NO_CROPS = np.zeros((0, 4), int)


@dataclass(frozen=True, slots=True)
class RoiConfig:
    """Settings, each a parameter of the detector node, described there."""

    roi_mode: str = "full"
    max_crops: int = 2
    budget_ms: float = 0.0
    min_crop_px: int = 0
    full_frame_interval_ms: float = 1000.0


@dataclass(frozen=True, slots=True, eq=False)
class RoiInput:
    """What is told of a frame. size_px: its width and height. regions, known: (n, 4) xyxy_px, what is new by
    the gate (none: it does not say), and the known objects. since_whole: (3, 3), the camera's motion since
    the last whole look, source pixels; None where it is not known."""

    size_px: tuple[int, int]
    regions: np.ndarray
    known: np.ndarray
    since_whole: np.ndarray | None


@dataclass(frozen=True, slots=True, eq=False)
class RoiPlan:
    """One frame's. crops: (k, 4) int xyxy_px. whole: the whole frame too, or alone. reason: why whole.
    shape: width by height, and the least width, of a further crop."""

    crops: np.ndarray
    whole: bool
    reason: str
    shape: tuple[float, int] = (1.0, 1)

    @property
    def runs(self) -> int:
        """Runs of the model, if nothing goes on beyond the crops."""
        return len(self.crops) + int(self.whole)

    @property
    def most_runs(self) -> int:
        """Runs of the model, if something does: a crop around that, and the whole frame if it is larger."""
        return self.runs + (0 if self.whole else 2)


class RoiPlanner:
    """Chooses the looks of one detector, and carries them out. One caller at a time, but for `reset`."""

    def __init__(self, config: RoiConfig | None = None) -> None:
        self._config = config or RoiConfig()
        self._budget = CropBudget(self._config.max_crops, self._config.budget_ms)
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._last = ""
        # What whole looks and crops took lately.
        self._whole_ms: deque[float] = deque(maxlen=MEASURED)
        self._crop_ms: deque[float] = deque(maxlen=MEASURED)
        # Of frames that had both, a crop's cost in whole looks.
        self._ratios: deque[float] = deque(maxlen=MEASURED)
        self.reset()

    @property
    def config(self) -> RoiConfig:
        """The settings; replacing them acts on the next frame."""
        return self._config

    @config.setter
    def config(self, config: RoiConfig) -> None:
        self._config = config
        self._budget.most, self._budget.budget_ms = config.max_crops, config.budget_ms

    def reset(self) -> None:
        """The next look is at the whole frame: after a cut, with another model or camera."""
        self._whole_stamp_ns: int | None = None
        self._whole_ns = 0

    @property
    def whole_stamp_ns(self) -> int | None:
        """The stamp of the frame of the last whole look, for `choose`."""
        return self._whole_stamp_ns

    def choose(self, scene: RoiInput, model_px: tuple[int, int], ns: int) -> RoiPlan:
        """How to look at a frame with a model of this width and height, at a monotonic time."""
        config = self._config
        if config.roi_mode == "full":
            return RoiPlan(NO_CROPS, True, "mode")
        if len(scene.regions) == 0:
            return RoiPlan(NO_CROPS, True, "no_regions")
        aspect, least_px = model_px[0] / model_px[1], config.min_crop_px or model_px[0]
        wanted = np.concatenate((scene.regions, scene.known), dtype=np.float64)
        most = 1 if config.roi_mode == "auto" else self._budget.limit
        crops = plan_crops(wanted, scene.size_px, aspect, least_px, most)
        if crops is None:
            return RoiPlan(NO_CROPS, True, "large")
        reason = self._stale(scene, ns)
        if not reason and config.roi_mode == "auto" and not self._pays(len(crops)):
            return RoiPlan(NO_CROPS, True, "cost")
        return RoiPlan(crops, bool(reason), reason, (aspect, least_px))

    def _pays(self, crops: int) -> bool:
        """True where crops cost no more than the whole frame, as far as was measured."""
        return len(self._ratios) < MIN_MEASURED or crops * median(self._ratios) <= AUTO_COST

    def _stale(self, scene: RoiInput, ns: int) -> str:
        """Why the last whole look says nothing of what is beside the crops; "" where it does."""
        if self._whole_stamp_ns is None:
            return "first"
        if scene.since_whole is None:
            return "camera_unknown"
        if _view(scene.since_whole, scene.size_px) < MIN_SAME_VIEW:
            return "camera_moved"
        return "due" if ns - self._whole_ns >= self._config.full_frame_interval_ms * 1e6 else ""

    def carry_out(
        self, look: RoiPlan, detect: Callable[[Frame], Detections], frame: Frame, max_detections: int, ns: int
    ) -> Detections:
        """RoiPlan. Raises what detect raises."""
        started = perf_counter()
        reason, whole, runs = look.reason, look.whole, len(look.crops)
        found: list[Detections] = []
        if runs:
            found, parts = detect_on(detect, frame, look.crops)
            if len(parts) and not whole:
                looks = len(found)
                parts = self._follow(look, detect, frame, found, parts)
                runs += len(found) - looks
                whole, reason = bool(len(parts)), "cut"
            self._crop_ms.append((perf_counter() - started) * 1e3 / runs)
        if whole:
            before = perf_counter()
            found.append(detect(frame))
            self._whole_ms.append((perf_counter() - before) * 1e3)
            self._whole_ns, self._whole_stamp_ns = ns, frame.stamp_ns
            if runs and self._whole_ms[-1] > 0.0:
                self._ratios.append(self._crop_ms[-1] / self._whole_ms[-1])
        if len(look.crops):
            self._budget.ran(runs + int(whole), (perf_counter() - started) * 1e3)
        self._note(runs, whole, reason)
        return found[0] if whole and not runs else merged(found, max_detections)

    def _follow(
        self,
        look: RoiPlan,
        detect: Callable[[Frame], Detections],
        frame: Frame,
        found: list[Detections],
        parts: Detections,
    ) -> Detections:
        """Look around parts of something that goes on beyond the crops, and add what is there to what was
        found. Returns what goes on beyond that crop too: then only the whole frame is large enough.

        So what is new there is known as a whole, and is within a crop on the next frame.
        """
        crop = plan_crops(around(parts), (frame.width_px, frame.height_px), *look.shape, 1)
        if crop is None:
            return parts
        more, beyond = detect_on(detect, frame, crop)
        found += more
        self._counts["followed"] += 1
        return uncovered(beyond, found)

    def _note(self, crops: int, whole: bool, reason: str) -> None:
        kind = "both" if whole and crops else "whole" if whole else "crops"
        self._last = kind
        self._counts.update({kind: 1, "runs": crops + int(whole), "crop_runs": crops})
        if whole:
            self._reasons[reason] += 1

    def status(self) -> dict[str, object]:
        """Flat figures: frames by how they were looked at, the limit on crops, what a run costs."""
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
        """Start new counts; what a run costs stays."""
        self._counts.clear()
        self._reasons.clear()


def _view(motion: np.ndarray, size_px: tuple[int, int]) -> float:
    """Share of the picture that shows what the picture before the motion showed."""
    if is_still(motion):
        return 1.0
    return overlap(motion, (size_px[1], size_px[0])) if np.isfinite(motion).all() else 0.0
