"""Whether a new model may serve: old and new detections on the same frames, judged by a sequential test.

A trial is a frame on which the old model is sure of an object. It is a miss if the new model does not find
one of these objects under the same label. The bounds are those of a confidence sequence, so the test may stop
at any time (see `core.confidence_intervals`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_vision.core.confidence_intervals import anytime_exceeds, anytime_interval
from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import SAME_BOX_IOU, iou_matrix
from edge_vision.updates.probation import Verdict

MAX_MISS_RATE = 0.1
SURE = 0.1
"""Above the threshold: objects near it flicker in any model."""
MAX_FRAMES = 2000
MANY, MOST = 5, 3.0


@dataclass(frozen=True, slots=True)
class ShadowFrame:
    """One frame. objects: that the old model is sure of. missed: of these, by the new one. flooded: the new
    one found far more."""

    objects: int
    missed: int
    flooded: bool


def compare(
    old: Detections, old_labels: Sequence[str], new: Detections, new_labels: Sequence[str], threshold: float
) -> ShadowFrame:
    """Compare the detections on one frame. threshold: of the old model's scores."""
    sure = old.select(old.scores >= threshold + SURE)
    overlap = iou_matrix(sure.xyxy_px, new.xyxy_px) >= SAME_BOX_IOU
    names = np.array([_name(old_labels, one) for one in sure.class_ids], dtype=object)
    found = np.array([_name(new_labels, one) for one in new.class_ids], dtype=object)
    same = names[:, None] == found[None, :] if len(names) and len(found) else np.zeros(overlap.shape, bool)
    missed = int(np.count_nonzero(~(overlap & same).any(axis=1))) if len(sure) else 0
    return ShadowFrame(len(sure), missed, len(new) > MOST * len(old) + MANY)


def _name(labels: Sequence[str], class_id: int) -> str:
    return labels[class_id] if 0 <= class_id < len(labels) else f"class {class_id}"


class ShadowTest:
    """Counts frames until the verdict is sure at 95 %."""

    def __init__(self) -> None:
        self.frames = self.trials = self.misses = self.floods = 0

    def add(self, one: ShadowFrame) -> Verdict | None:
        """Count a frame. Returns the verdict once there is one."""
        self.frames += 1
        self.floods += one.flooded
        if one.objects:
            self.trials += 1
            self.misses += one.missed > 0
        return self.verdict()

    def verdict(self) -> Verdict | None:
        """commit: the new model may serve. None while it is open."""
        if anytime_exceeds(self.misses, self.trials, MAX_MISS_RATE):
            return self._verdict(False, "misses or labels differently what the present model is sure of")
        if anytime_exceeds(self.floods, self.frames, MAX_MISS_RATE):
            return self._verdict(False, "flooding: finds far more objects than the present model")
        if anytime_exceeds(self.trials - self.misses, self.trials, 1.0 - MAX_MISS_RATE):
            return self._verdict(True, "agrees with the present model")
        if self.frames >= MAX_FRAMES:
            return self._verdict(False, f"no decision after {MAX_FRAMES} frames")
        return None

    def _verdict(self, commit: bool, reason: str) -> Verdict:
        low, high = anytime_interval(self.misses, self.trials)
        evidence = {
            "frames": self.frames,
            "frames_with_objects": self.trials,
            "frames_with_a_miss": self.misses,
            "flooded_frames": self.floods,
            "miss_rate_low": round(low, 4),
            "miss_rate_high": round(high, 4),
        }
        return Verdict(commit, f"{reason} ({self.misses} of {self.trials} frames with a miss)", evidence)
