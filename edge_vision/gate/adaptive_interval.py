"""How far apart the detector may look while something new is always there.

A fixed interval loses what it loses. Here each result sets the time of the next look:

- *Would the tracks have told it?* What they foretell of a frame is compared with what the detector finds on
  it. So the frame F1 of what is published in between is known, roughly, without looking there; the interval
  grows while it stays high, and shrinks as soon as it does not.
- *Does it hint of somebody who comes in?* An object seldom comes out of nothing: on the frame before, the
  detector mostly gave it a score already, below the threshold. Where there is no such hint, the next look may
  come one frame later.

Measured on vtest.avi (10 frames a second, 31 entries, SSDLite): of the 14 entries that a look at every third
frame may miss, 10 had a hint of half the threshold on the frame before, at their place (`make bench-low-score`).
With `config/economy.yaml` the detector looks at 51 % of the frames without a stretch, frame F1 0.956, and at
47 % with one, 0.952; no entry is late (`make evaluate-cascade`).
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import SAME_OBJECT_IOU, best_iou, true_positives
from edge_vision.tracking.tracker import Tracker

MEMORY_S = 3.0
"""Results that are older count less than 1 / e."""
GOOD_RESULTS = 3
"""So many in a row, after which one frame more would still do, make it one frame more."""
_STANDS = np.eye(3)


class AdaptiveInterval:
    """The interval between looks of one camera, in frames. One caller at a time.

    A result may come late; until it does, there is no hint and nothing is foretold.
    """

    def __init__(self) -> None:
        self._tracker = Tracker(0, 0)
        self.restart((0, 0))

    def restart(self, size_px: tuple[int, int]) -> None:
        """Begin with every frame: nothing is known yet of how well tracks do here."""
        self._tracker.resize(*size_px)
        self.frames = 1
        self._good = 0
        self._told_ns: int | None = None
        # Frames that passed and wait for their result: stamp, and frames since the one before.
        self._passed: deque[tuple[int, int]] = deque(maxlen=16)
        self._since, self._stretched = 0, 0
        self._predicted_by_low_score = True
        self._classes: set[int] = set()
        # Boxes, and those of them that were foretold, at the results and estimated for all frames.
        self._boxes = self._foretold = self._all_boxes = self._all_foretold = 0.0

    @property
    def agreement(self) -> float | None:
        """F1 of what the tracks foretold against what was found, of the last results; None without a box."""
        return self._foretold / self._boxes if self._boxes > 0.5 else None

    @property
    def frame_f1(self) -> float | None:
        """The same for all that was published, looks and tracks between them; an estimate."""
        return self._all_foretold / self._all_boxes if self._all_boxes > 0.5 else None

    def due(self, since_ms: float, interval_ms: float, min_f1: float, stretch: int) -> bool:
        """Whether the detector looks at the frame that has just come; call it once for each.

        since_ms: since the last one that it looked at. interval_ms: the longest time without a look, but
        for so many frames more (stretch) where nothing was hinted. min_f1: the least frame F1; 0 = any.
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
        """The detector looks at this frame."""
        self._passed.append((stamp_ns, self._since))
        self._since = self._stretched = 0
        self._predicted_by_low_score = True

    def found(self, stamp_ns: int, found: Detections, low_score: Detections | None, min_f1: float) -> None:
        """What the detector found on a frame that passed. low_score: what scored less; None where not known."""
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
        if self._told_ns is not None and stamp_ns > self._told_ns:
            self._compare(stamp_ns, found, frames, min_f1)
        self._tracker.update(found, stamp_ns, _STANDS)
        self._told_ns = stamp_ns

    def _is_predicted_by_low_score(self, found: Detections, low_score: Detections) -> bool:
        """Whether something that may become an object is beside what was found. Of a class that was never
        told of here, it mostly never will be: some lamp looks a little like a kite all day."""
        usual = [class_id in self._classes for class_id in low_score.class_ids.tolist()]
        return any(usual) and bool(
            (best_iou(low_score.xyxy_px[usual], found.xyxy_px) < SAME_OBJECT_IOU).any()
        )

    def _compare(self, stamp_ns: int, found: Detections, frames: int, min_f1: float) -> None:
        assert self._told_ns is not None
        foretold = self._tracker.predict(stamp_ns, _STANDS).detections()
        boxes, right = len(foretold) + len(found), 2 * true_positives(foretold, found)
        kept = math.exp(-(stamp_ns - self._told_ns) * 1e-9 / MEMORY_S)
        self._boxes = kept * self._boxes + boxes
        self._foretold = kept * self._foretold + right
        self._all_boxes = kept * self._all_boxes + boxes * frames
        self._all_foretold = (
            kept * self._all_foretold + boxes * frames - (boxes - right) * _lost(frames, frames)
        )
        self._choose(frames, min_f1)

    def _choose(self, frames: int, min_f1: float) -> None:
        """The next interval, after one of so many frames."""
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
    """What is lost on so many frames, the first of which is looked at, in units of what was after `measured`
    frames: as if it were lost evenly from look to look."""
    return sum(k / measured for k in range(frames))
