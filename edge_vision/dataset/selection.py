"""Which frames are worth a label, and how many of them are kept.

    audit_miss     the gate would have skipped the frame, and so missed an object (`gate.audit`)
    disagreement   two models disagree: a student with its teacher, or a new model with the present one
    low_margin     the score of an object is close to the threshold
    random         drawn at random from all frames: the baseline that says how rare the others are

Source: uncertainty and disagreement sampling, Settles, "Active Learning Literature Survey" (2009).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import SAME_BOX_IOU, iou_matrix

AUDIT_MISS, DISAGREEMENT, LOW_MARGIN, RANDOM = REASONS = (
    "audit_miss",
    "disagreement",
    "low_margin",
    "random",
)
NO_CLASS = ""
"""The class of pictures that no object is the cause of."""


@dataclass(frozen=True, slots=True)
class SelectionConfig:
    """Settings of the selection. Each is a parameter of the collector node, described there."""

    reasons: tuple[str, ...] = REASONS
    score_margin: float = 0.1
    daily_per_class: int = 20
    random_per_hour: float = 4.0
    min_interval_s: float = 2.0


def uncertain(found: Detections, low_score: Detections | None, threshold: float, margin: float) -> Detections:
    """The detections whose scores are within the margin of the threshold, the closest first."""
    near = Detections.joined([found, low_score] if low_score else [found])
    distance = np.abs(near.scores - np.float32(threshold))
    order = np.argsort(distance, kind="stable")
    return near.select(order[distance[order] < margin])


def unmatched(found: Detections, other: Detections, threshold: float) -> Detections:
    """The detections from the threshold on that another model does not have, whatever its score."""
    sure = found.select(found.scores >= np.float32(threshold))
    same = sure.class_ids[:, None] == other.class_ids[None]
    matched = (same & (iou_matrix(sure.xyxy_px, other.xyxy_px) >= SAME_BOX_IOU)).any(axis=1)
    return sure.select(~matched)


class DailyQuota:
    """At most so many pictures of a day, reason and class."""

    def __init__(self, kept: Iterable[tuple[str, str, Sequence[str]]] = ()) -> None:
        """kept: day, reason and classes of each picture that is kept already."""
        self._counts: Counter[tuple[str, str, str]] = Counter()
        for day, reason, classes in kept:
            self.add(day, reason, classes)

    def open_classes(self, day: str, reason: str, classes: Sequence[str], limit: int) -> tuple[str, ...]:
        """Those of the classes of which the day's quota is not used up."""
        return tuple(one for one in dict.fromkeys(classes) if self._counts[day, reason, one] < limit)

    def add(self, day: str, reason: str, classes: Sequence[str]) -> None:
        """Count a picture for the classes that it was kept for."""
        self._counts.update((day, reason, one) for one in classes)


class RandomTimes:
    """Times of a Poisson process: the first frame after each is in the baseline, whatever is on it."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)
        self._due_s: float | None = None
        self._per_hour = 0.0

    def is_due(self, now_s: float, per_hour: float) -> bool:
        """Whether to keep this frame. per_hour: mean rate; another one takes effect at once."""
        if per_hour != self._per_hour or self._due_s is None:
            self._per_hour = per_hour
            self._due_s = now_s + self._wait_s()
        if now_s < self._due_s:
            return False
        self._due_s = now_s + self._wait_s()
        return True

    def _wait_s(self) -> float:
        return self._random.expovariate(self._per_hour / 3600.0) if self._per_hour else math.inf
