"""The interval between inferences while the scene keeps changing.

Each result sets the time of the next inference:

- *Prediction*: the tracks predicted for a frame are compared with its detections. That estimates the frame F1
  of what is published in between; the interval grows while it stays high and shrinks when it falls.
- *Low-score detections*: before an object is detected, the detector mostly gives it a score below the
  threshold. Without such a score the next inference may come one frame later.

Measured on vtest.avi (10 Hz, 31 entries, SSDLite): of 14 entries that an inference on every third frame may
miss, 10 had a score of half the threshold on the frame before, at their position (`make bench-low-score`).
With `config/economy.yaml` 51 % of the frames are inferred without the longer interval, frame F1 0.956, and
47 % with it, 0.952; no entry is late (`make evaluate-cascade`).
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import SAME_OBJECT_IOU, best_iou, true_positives
from edge_vision.tracking.tracker import Tracker

MEMORY_S = 3.0
"""Older results have weights below 1 / e."""
GOOD_RESULTS = 3
"""After so many consecutive results that allow one frame more, the interval grows by one frame."""
_STANDS = np.eye(3)


class AdaptiveInterval:
    """The interval between inferences of one camera, in frames. Not thread-safe. Results may be late."""

    def __init__(self) -> None:
        self._tracker = Tracker(0, 0)
        self.restart((0, 0))

    def restart(self, size_px: tuple[int, int]) -> None:
        """Start with every frame, as the quality of the tracks is unknown."""
        self._tracker.resize(*size_px)
        self.frames = 1
        self._good = 0
        self._result_ns: int | None = None
        # Frames that passed and wait for their result: stamp, and frames since the one before.
        self._passed: deque[tuple[int, int]] = deque(maxlen=16)
        self._since, self._stretched = 0, 0
        self._predicted_by_low_score = True
        self._classes: set[int] = set()
        # Boxes, and those of them that were predicted, at the results and estimated for all frames.
        self._boxes = self._predicted = self._all_boxes = self._all_predicted = 0.0

    @property
    def agreement(self) -> float | None:
        """F1 of predicted tracks against detections, over the last results; None without a box."""
        return self._predicted / self._boxes if self._boxes > 0.5 else None

    @property
    def frame_f1(self) -> float | None:
        """The same for everything published, inferred frames included; an estimate."""
        return self._all_predicted / self._all_boxes if self._all_boxes > 0.5 else None

    def due(self, since_ms: float, interval_ms: float, min_f1: float, stretch: int) -> bool:
        """Whether to infer the frame that has just arrived; call it once per frame.

        since_ms: since the last inference. interval_ms: longest time between inferences, extended by
        `stretch` frames without low-score detections. min_f1: lowest frame F1; 0 = any.
        """
        self._since += 1
        if min_f1 > 0.0 and self._since >= self.frames:
            return True
        if since_ms < interval_ms:
            return False
        if self._stretched < stretch and not self._predicted_by_low_score:
            self._stretched += 1
            return False
        return True

    def passed(self, stamp_ns: int) -> None:
        """This frame is inferred."""
        self._passed.append((stamp_ns, self._since))
        self._since = self._stretched = 0
        self._predicted_by_low_score = True

    def found(self, stamp_ns: int, found: Detections, low_score: Detections | None, min_f1: float) -> None:
        """Take the detections of an inferred frame. low_score: those below the threshold; None if unknown."""
        while self._passed and self._passed[0][0] < stamp_ns:
            self._passed.popleft()
        if not self._passed or self._passed[0][0] != stamp_ns:
            return
        _, frames = self._passed.popleft()
        self._classes.update(found.class_ids.tolist())
        if not self._passed:
            self._predicted_by_low_score = low_score is None or self._is_predicted_by_low_score(
                found, low_score
            )
        if self._result_ns is not None and stamp_ns > self._result_ns:
            self._compare(stamp_ns, found, frames, min_f1)
        self._tracker.update(found, stamp_ns, _STANDS)
        self._result_ns = stamp_ns

    def _is_predicted_by_low_score(self, found: Detections, low_score: Detections) -> bool:
        """Whether a low-score detection of a class seen before lies beside all detections. Others
        mostly never become objects: a lamp resembles a kite all day."""
        usual = [class_id in self._classes for class_id in low_score.class_ids.tolist()]
        return any(usual) and bool(
            (best_iou(low_score.xyxy_px[usual], found.xyxy_px) < SAME_OBJECT_IOU).any()
        )

    def _compare(self, stamp_ns: int, found: Detections, frames: int, min_f1: float) -> None:
        assert self._result_ns is not None
        predicted = self._tracker.predict(stamp_ns, _STANDS).detections()
        boxes, right = len(predicted) + len(found), 2 * true_positives(predicted, found)
        kept = math.exp(-(stamp_ns - self._result_ns) * 1e-9 / MEMORY_S)
        self._boxes = kept * self._boxes + boxes
        self._predicted = kept * self._predicted + right
        self._all_boxes = kept * self._all_boxes + boxes * frames
        self._all_predicted = (
            kept * self._all_predicted + boxes * frames - (boxes - right) * _lost(frames, frames)
        )
        self._choose(frames, min_f1)

    def _choose(self, frames: int, min_f1: float) -> None:
        """Set the next interval after one of so many frames."""
        now, lost = self.frame_f1, 1.0 - (1.0 if self.agreement is None else self.agreement)
        if now is not None and now < min_f1:
            self.frames, self._good = max(1, min(self.frames, frames) - 1), 0
            return
        one_more = 1.0 - lost * _lost(frames + 1, frames) / (frames + 1)
        self._good = self._good + 1 if one_more >= min_f1 else 0
        if self._good >= GOOD_RESULTS and frames >= self.frames:
            self.frames, self._good = frames + 1, 0

    def status(self) -> dict[str, object]:
        """Flat figures, None where nothing was in view."""
        return {
            "adaptive_interval.frames": self.frames,
            "adaptive_interval.agreement": self.agreement,
            "adaptive_interval.frame_f1": self.frame_f1,
        }


def _lost(frames: int, measured: int) -> float:
    """Loss over so many frames, the first of which is inferred, in units of the loss after `measured` frames,
    assumed to grow linearly."""
    return sum(k / measured for k in range(frames))
