"""Decides at run time whether a specialised model is still right, from comparisons with its teacher.

    trusted --a comparison disagrees--> doubtful --agreement too low--> fallback --agrees again--> trusted

Bounds are anytime-valid (`core/confidence_intervals.py`): a sequence of comparisons begins with each change
of state, and is acted on while it grows.
"""

from __future__ import annotations

import math

import numpy as np

from edge_vision.core.confidence_intervals import anytime_exceeds
from edge_vision.core.detections import DetectionResult
from edge_vision.core.geometry.boxes import SAME_BOX_IOU, iou_matrix

TRUSTED, DOUBTFUL, FALLBACK = "trusted", "doubtful", "fallback"
PERIOD_S, DOUBT_PERIOD_S = 1.0, 0.25
"""Between comparisons; further apart than frames, which resemble each other."""
QUIET_S = 5.0
"""Doubt ends after this long without an object."""
CONFIDENCE = 0.99
SURE_MARGIN = 0.1
"""Only boxes whose score exceeds the threshold by this must be found by both models."""
LEAST_SHARE = 0.5
"""Of the sure boxes of a frame, found by both, from which the models agree on it."""


class SceneGuard:
    """One thread calls. least: share of comparisons, 0..1, that must agree."""

    def __init__(self, least: float) -> None:
        self._least = least
        self.state = TRUSTED
        self.compared = self.falls = 0
        self._hits = self._n = 0
        self._compared_s = self._object_s = -math.inf

    @property
    def uses_teacher(self) -> bool:
        """Whether the teacher's detections are to be published."""
        return self.state != TRUSTED

    @property
    def agreement(self) -> float | None:
        """Share of the comparisons since the last change of state."""
        return self._hits / self._n if self._n else None

    def is_due(self, now_s: float) -> bool:
        """Whether to compare the models on this frame."""
        return now_s - self._compared_s >= (DOUBT_PERIOD_S if self.state == DOUBTFUL else PERIOD_S)

    def add(self, agrees: bool | None, now_s: float) -> bool:
        """Take a comparison, None if there was nothing to compare. Returns whether the state is another."""
        before, self._compared_s = self.state, now_s
        if agrees is None:
            if self.state == DOUBTFUL and now_s - self._object_s >= QUIET_S:
                self._enter(TRUSTED)
            return self.state != before
        self.compared, self._object_s = self.compared + 1, now_s
        if self.state == TRUSTED and not agrees:
            self._enter(DOUBTFUL)  # What began the doubt is no evidence: it was selected.
            return True
        if self.state == FALLBACK and not agrees:
            self._hits = self._n = 0
            return False
        self._hits, self._n = self._hits + agrees, self._n + 1
        if self.state != TRUSTED and anytime_exceeds(self._hits, self._n, self._least, CONFIDENCE):
            self._enter(TRUSTED)
        elif self.state == DOUBTFUL and anytime_exceeds(
            self._n - self._hits, self._n, 1 - self._least, CONFIDENCE
        ):
            self._enter(FALLBACK)
            self.falls += 1
        return self.state != before

    def _enter(self, state: str) -> None:
        self.state, self._hits, self._n = state, 0, 0


def agreement(ours: DetectionResult, teachers: DetectionResult, threshold: float) -> bool | None:
    """Whether two models agree on a frame, with the same classes; None if neither is sure of an object."""
    found = total = 0
    for one, other in ((ours, teachers), (teachers, ours)):
        boxes = one.detections.select(one.detections.scores >= threshold + SURE_MARGIN)
        total += len(boxes)
        matched = np.zeros(len(boxes), bool)
        for candidates in filter(None, (other.detections, other.low_score)):
            same = boxes.class_ids[:, None] == candidates.class_ids[None]
            iou = iou_matrix(boxes.xyxy_px, candidates.xyxy_px)
            matched |= (same & (iou >= SAME_BOX_IOU)).any(axis=1)
        found += int(matched.sum())
    return found >= LEAST_SHARE * total if total else None
