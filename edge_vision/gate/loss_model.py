"""How many published boxes would differ from the detector's on frames that are not inferred.

The unit of loss is one box that only one side has: F1 = 1 - loss / (boxes of both sides). On the h-th frame
after an inference, the expected loss is

    flicker_scale * flicker + drift * objects * h

flicker  what the detector's own noise costs whatever the tracker does: a box whose score is s is found again
         with the probability p = Phi((s - threshold) / SCORE_SD), and a low-score detection appears with it.
drift    what changes with time: objects that move off their prediction, appear and leave.

Both factors are fitted to what was observed: a ridge regression with exponential forgetting. The detector's
threshold and the deviation of its scores are learned from its results too.
"""

from __future__ import annotations

import math

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import SAME_BOX_IOU, iou_matrix, true_positives

FIRST_SCORE_SD, MIN_SCORE_SD = 0.07, 0.02
"""Standard deviation of a score from frame to frame, near the threshold. SSDLite has 0.09, NanoDet 0.05."""
NEAR = 0.1
"""Scores this near to the threshold tell the deviation there: high scores deviate less."""
MEMORY_S = 2.5
"""Half-life of what was observed about flicker and drift."""
BOXES_MEMORY_S = 6.0
CEILING_MEMORY_S = 10.0
FIRST_DRIFT = 0.03
FIRST_CEILING = 0.91
"""Assumed before there are observations, with the weight of so many frames or boxes:"""
FLICKER_WEIGHT, DRIFT_WEIGHT, CEILING_WEIGHT, SCORE_WEIGHT = 5.0, 10.0, 4.0, 20.0
SCORE_KEEP = 0.95
"""Per inference, of what was learned about scores."""
MIN_BOXES = 0.5
"""Per frame, of both sides: an empty scene must not make a single doubtful box look expensive."""
_MAX_HORIZON = 30


class LossModel:
    """Learns from each inference."""

    def __init__(self) -> None:
        self.scores = ScoreNoise()
        self.flicker_scale, self.drift = 1.0, FIRST_DRIFT
        self.boxes, self.ceiling = 2.0, FIRST_CEILING
        self._flicker = self._objects = 0.0
        self._observed = 0
        self._sums = [0.0] * 5
        self._agreeing = self._expected = 0.0

    def loss(self, frames: int) -> float:
        """The expected loss on the frame that comes so many frames after the last inference."""
        return self.flicker_scale * self._flicker + self.drift * self._objects * frames

    def still_loss(self) -> float:
        """The expected loss on a frame that does not differ from the last inferred one: flicker alone."""
        return self.flicker_scale * self._flicker

    def urgency(self, frames: int) -> float:
        """What an inference is worth on the frame that comes so many frames after the last one.

        With a price in units of loss, inferring every n-th frame costs (price + loss(1) + ... + loss(n-1))
        / n per frame. That is least at the first n with n * loss(n) - (loss(1) + ... + loss(n-1)) >= price (a
        renewal-reward argument). For a linear loss the left side is what this returns.
        """
        return self.flicker_scale * self._flicker + self.drift * self._objects * frames * (frames + 1) / 2

    def observe(
        self,
        found: Detections,
        low_score: Detections | None,
        predicted: Detections | None,
        frames: int,
        seconds: float,
    ) -> None:
        """Take one inference's result.

        predicted: what would have been published on that frame, None if that is unknown (the first frame, a
        cut). frames, seconds: since the inference before.
        """
        # The state is still that of the inference before: it is what the prediction was made from.
        if predicted is not None and 0 < frames <= _MAX_HORIZON:
            self._fit(found, predicted, frames, seconds)
        self.scores.observe(found, low_score)
        p_found = self.scores.p_again(found)
        p_low = [] if low_score is None else self.scores.p_again(low_score)
        expected = sum(p_found) + sum(p_low)
        self._flicker = len(p_found) - sum(p_found) + sum(p_low)
        self._objects = max(float(len(found)), expected)
        self._observed += 1
        step = 0.5 if self._observed <= 2 else 1.0 - _decay(seconds, BOXES_MEMORY_S)
        self.boxes += step * (2.0 * len(found) - self.boxes)
        keep = _decay(seconds, CEILING_MEMORY_S)
        self._agreeing = keep * self._agreeing + sum(p * p for p in (*p_found, *p_low))
        self._expected = keep * self._expected + expected
        assumed = (self._agreeing + FIRST_CEILING * CEILING_WEIGHT) / (self._expected + CEILING_WEIGHT)
        # Scores vary because objects move, too. flicker_scale tells how much of it changed what is found.
        self.ceiling = 1.0 - min(self.flicker_scale, 1.0) * (1.0 - assumed)

    def _fit(self, found: Detections, predicted: Detections, frames: int, seconds: float) -> None:
        observed = len(found) + len(predicted) - 2 * true_positives(predicted, found)
        flicker, drift = self._flicker, self._objects * frames
        weight = 1.0 / max(0.3, flicker + 0.1 * drift)
        keep = _decay(seconds, MEMORY_S)
        added = (flicker * flicker, flicker * drift, drift * drift, flicker * observed, drift * observed)
        self._sums = [keep * sum_ + weight * term for sum_, term in zip(self._sums, added, strict=True)]
        # The normal equations of two unknowns, from their weighted sums.
        a, b, c, u, v = self._sums
        a, c = a + FLICKER_WEIGHT, c + DRIFT_WEIGHT
        u, v = u + FLICKER_WEIGHT, v + DRIFT_WEIGHT * FIRST_DRIFT
        determinant = a * c - b * b
        self.flicker_scale = min(max((c * u - b * v) / determinant, 0.3), 2.0)
        self.drift = min(max((a * v - b * u) / determinant, 0.0), 0.6)


class ScoreNoise:
    """How much a detector's scores vary from one inference to the next, near its threshold."""

    def __init__(self) -> None:
        self.threshold = 0.5
        self._below, self._above = 0.0, 1.0
        self._squares, self._pairs = FIRST_SCORE_SD**2 * SCORE_WEIGHT, SCORE_WEIGHT
        self._last = Detections.empty()

    @property
    def sd(self) -> float:
        """Standard deviation of one score."""
        return max(MIN_SCORE_SD, math.sqrt(self._squares / self._pairs))

    def p_again(self, boxes: Detections) -> list[float]:
        """The probability that the detector finds each box on the next frame."""
        scale = self.sd * math.sqrt(2.0)
        return [0.5 * (1.0 + math.erf((score - self.threshold) / scale)) for score in boxes.scores.tolist()]

    def observe(self, found: Detections, low_score: Detections | None) -> None:
        """Compare with the result before. Without low_score, nothing is learned: only half would be seen."""
        if low_score is None:
            return
        self._learn_threshold(found.scores, low_score.scores)
        boxes = Detections.joined([found, low_score])
        near = self._last.select(np.abs(self._last.scores - self.threshold) < NEAR)
        if len(near) and len(boxes):
            iou = iou_matrix(near.xyxy_px, boxes.xyxy_px) * (near.class_ids[:, None] == boxes.class_ids[None])
            best = iou.argmax(axis=1)
            same = iou[np.arange(len(near)), best] >= SAME_BOX_IOU
            differences = (boxes.scores[best].clip(0.0, 1.0) - near.scores)[same]
            # Half: the difference of two scores has twice the variance of one.
            self._squares = SCORE_KEEP * self._squares + 0.5 * float((differences**2).sum())
            self._pairs = SCORE_KEEP * self._pairs + len(differences)
        self._last = boxes

    def _learn_threshold(self, found: np.ndarray, low: np.ndarray) -> None:
        """It is above every low score and not above any found one; bounds that cross mean a new threshold."""
        # A peer may send any number as a score.
        below = min(float(low.max(initial=0.0)), 1.0)
        above = max(float(found.min(initial=1.0)), 0.0)
        self._below, self._above = max(self._below, below), min(self._above, above)
        if self._below > self._above:
            self._below, self._above = below, above
        if self._above < 1.0:
            self.threshold = (max(self._below, 0.5 * self._above) + self._above) / 2


def _decay(seconds: float, half_life_s: float) -> float:
    return float(0.5 ** (min(max(seconds, 0.0), 60.0) / half_life_s))
