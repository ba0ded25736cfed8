"""Whether known objects still look as they did when the detector last saw them.

The gate asks whether anything new is in the picture, and has a least area for it. A small thing that goes
while nothing else moves may stay below that, and would be told of until the next inference. So each known
object has its own, closer look at an interval: the place where it must be now, against the place where it was
found, by the normalised correlation of the two patches (J. P. Lewis 1995), which no gain and no offset of
light changes.

What looks otherwise is only doubted: a shadow or a flickering sign does it too. The detector decides.

Measured on vtest.avi at luma size, boxes of the detector: parked cars 1 to 15 s later 0.75 to 1.0 (99 % above
0.95), under gains of 0.5 to 1.5 and offsets of 30 grey levels as well (99 % above 0.93); walkers against the
empty place 95 % below 0.63.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

from edge_vision.core.geometry.boxes import best_iou
from edge_vision.core.geometry.homography import IDENTITY, transform_boxes

SAME_CORRELATION = 0.7
# What correlates less must also differ by this much more than noise, in grey levels: a patch of one grey with
# nothing on it correlates with nothing.
NOISE_FACTOR = 3.0
MIN_DIFFERENCE = 4.0
# The border of an object tells most, so a patch is larger than its box by this share on each side,
MARGIN_SHARE = 0.15
# and alignment may be wrong by so many luma pixels.
SLACK_PX = 2
MIN_SIDE_PX = 6
# Share of a patch that must be in the picture.
MIN_VISIBLE = 0.9
# Frames that are with the detector, or superseded on the way.
MAX_WAITING = 16
STILL_THERE_IOU = 0.4
# An interval grows by doubling, to so many times, while the detector sees what was doubted.
MAX_PATIENCE = 16


@dataclass(slots=True, eq=False)
class _Seen:
    """A frame that went to the detector. motion: (3, 3), where a point of it is now; luma pixels."""

    stamp_ns: int
    luma: np.ndarray
    motion: np.ndarray
    doubted: np.ndarray


class AppearanceCheck:
    """The looks of the objects of one camera. One caller at a time; all images have one size, or `forget`.

    Times are monotonic. Boxes are in luma pixels.
    """

    def __init__(self) -> None:
        self.looks = self.doubts = self.confirmed = 0
        self.forget()

    def forget(self) -> None:
        """Nothing is known: after a cut, and where the camera's motion is not known."""
        self._waiting: deque[_Seen] = deque(maxlen=MAX_WAITING)
        self._seen: _Seen | None = None
        self._boxes = np.zeros((0, 4))
        self._looked_ns = 0
        self._patience = 1

    def move(self, camera_motion: np.ndarray | None) -> None:
        """A frame is judged. camera_motion: (3, 3), of the frame before to this one, luma pixels."""
        if camera_motion is None:
            self.forget()
        elif camera_motion is not IDENTITY:
            for one in (*self._waiting, self._seen):
                if one is not None:
                    one.motion = camera_motion @ one.motion

    def passed(self, stamp_ns: int, luma: np.ndarray, doubted: np.ndarray) -> None:
        """The frame goes to the detector. doubted: what `changed` has just given, else (0, 4)."""
        self._waiting.append(_Seen(stamp_ns, luma, IDENTITY, doubted))

    def found(self, stamp_ns: int, boxes: np.ndarray, mono_ns: int) -> None:
        """The detector found these (n, 4) on a frame that passed. From now on they are what is known."""
        while self._waiting and self._waiting[0].stamp_ns < stamp_ns:
            self._waiting.popleft()
        if not self._waiting or self._waiting[0].stamp_ns != stamp_ns:
            return
        self._seen = self._waiting.popleft()
        self._boxes = boxes[np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
        self._looked_ns = mono_ns
        if len(self._seen.doubted):
            there = best_iou(self._seen.doubted, self._boxes) > STILL_THERE_IOU
            self.confirmed += int(np.count_nonzero(there))
            self._patience = min(MAX_PATIENCE, 2 * self._patience) if there.all() else 1

    def changed(self, luma: np.ndarray, noise: float, mono_ns: int, interval_ms: float) -> np.ndarray:
        """(n, 4) where known objects are now that look otherwise. None, before the interval has passed.

        noise: the camera's, in grey levels.
        """
        seen = self._seen
        if seen is None or mono_ns - self._looked_ns < self._patience * interval_ms * 1e6:
            return self._boxes[:0]
        self._looked_ns = mono_ns
        self.looks += len(self._boxes)
        differs = [looks_otherwise(seen.luma, luma, seen.motion, box, noise) for box in self._boxes]
        boxes = self._boxes[np.array(differs, bool)] if differs else self._boxes
        self.doubts += len(boxes)
        return boxes if seen.motion is IDENTITY else transform_boxes(boxes, seen.motion)

    def status(self) -> dict[str, object]:
        """recheck.looks: objects compared; .doubted: those that looked otherwise; .confirmed: those of them
        that the detector still found."""
        return {
            "recheck.looks": self.looks,
            "recheck.doubted": self.doubts,
            "recheck.confirmed": self.confirmed,
        }


def looks_otherwise(
    before: np.ndarray, now: np.ndarray, motion: np.ndarray, box: np.ndarray, noise: float
) -> bool:
    """Whether what was in a box, (4,) xyxy, looks otherwise in a later image; (h, w) uint8 both.

    motion: (3, 3), where a point of before is now. False too where the place is no longer in the picture.
    """
    patch = left, top, right, bottom = _patch(box, before.shape)
    if right - left < MIN_SIDE_PX or bottom - top < MIN_SIDE_PX:
        return False
    there, then = _shown_at(patch, motion, now), _shown_at(patch, IDENTITY, before)
    if there is None or then is None:
        return False
    there = cv2.blur(there, (3, 3))
    # Blurred before it is cut out, as the other one is: else the two have other pixels at their borders.
    then = cv2.blur(then, (3, 3))[SLACK_PX:-SLACK_PX, SLACK_PX:-SLACK_PX]
    correlation = float(cv2.matchTemplate(there, then, cv2.TM_CCOEFF_NORMED).max())
    if correlation >= SAME_CORRELATION:
        return False
    contrast = max(float(then.std()), float(there.std()))
    difference = contrast * np.sqrt(1.0 - max(0.0, correlation) ** 2)
    return bool(difference > max(MIN_DIFFERENCE, NOISE_FACTOR * noise))


def _patch(box: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The pixels around a box, within the image; empty where there are none."""
    low, high = box[:2], box[2:]
    margin = np.maximum(MARGIN_SHARE * (high - low), (MIN_SIDE_PX - (high - low)) / 2)
    size = np.array([shape[1], shape[0]], np.float64)
    low, high = np.clip(np.rint([low - margin, high + margin]), 0, size)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _shown_at(patch: tuple[int, int, int, int], motion: np.ndarray, now: np.ndarray) -> np.ndarray | None:
    """What is now where a patch of the image before has gone to, with the slack around it; None where too
    little of it is in the picture. The picture's last pixels stand for those beyond its border."""
    left, top, right, bottom = patch
    height, width = now.shape
    if motion is not IDENTITY:
        corners = transform_boxes(np.array([[left, top, right, bottom]], np.float64), motion)[0]
        if not np.isfinite(corners).all():
            return None
        low, high = np.maximum(corners[:2], 0.0), np.minimum(corners[2:], [width, height])
        inside = np.prod(np.maximum(high - low, 0.0))
        if inside < MIN_VISIBLE * np.prod(corners[2:] - corners[:2]):
            return None
    back = motion @ np.array([[1, 0, left - SLACK_PX], [0, 1, top - SLACK_PX], [0, 0, 1]], np.float64)
    size = (right - left + 2 * SLACK_PX, bottom - top + 2 * SLACK_PX)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpPerspective(now, back, size, flags=how, borderMode=cv2.BORDER_REPLICATE)
