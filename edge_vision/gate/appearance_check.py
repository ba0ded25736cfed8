"""Whether known objects still look as they did when the detector last found them.

The gate needs a minimum area of change. A small object that leaves while nothing else moves may stay below
it, and its track would be published until the next inference. So each known object is compared at an
interval: the patch where it was found with the patch where it must be now, by the normalised
cross-correlation (J. P. Lewis 1995), which is invariant to gain and offset of the light.

A changed appearance is a suspicion, as shadows and flickering signs cause it too. The detector decides.

Measured on vtest.avi at luma size with the detector's boxes: parked cars 1 to 15 s later correlate by 0.75 to
1.0 (99 % above 0.95), under gains of 0.5 to 1.5 and offsets of 30 grey levels too (99 % above 0.93); walkers
with the empty background by less than 0.63 (95 %).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

from edge_vision.core.geometry.boxes import best_iou
from edge_vision.core.geometry.homography import IDENTITY, transform_boxes

SAME_CORRELATION = 0.7
# A lower correlation counts only with a difference above the noise, in grey levels: uniform patches correlate
# with nothing.
NOISE_FACTOR = 3.0
MIN_DIFFERENCE = 4.0
# The outline of an object is its best feature, so the patch exceeds the box by this share on each side.
MARGIN_SHARE = 0.15
# Tolerated misalignment in luma pixels.
SLACK_PX = 2
MIN_SIDE_PX = 6
# Share of a patch that must be within the image.
MIN_VISIBLE = 0.9
# Frames without a result yet, superseded ones included.
MAX_PENDING = 16
STILL_PRESENT_IOU = 0.4
# The interval doubles up to this factor while the detector still finds the suspected objects.
MAX_INTERVAL_FACTOR = 16


@dataclass(slots=True, eq=False)
class _PassedFrame:
    """A frame that went to the detector. motion: (3, 3), from it to the current frame, luma pixels."""

    stamp_ns: int
    luma: np.ndarray
    motion: np.ndarray
    suspected: np.ndarray


class AppearanceCheck:
    """The appearance of the objects of one camera. One caller at a time; after a new image size, `forget`.

    Times are monotonic. Boxes are (n, 4) xyxy in luma pixels.
    """

    def __init__(self) -> None:
        self._compared = self._changed = self._still_present = 0
        self.forget()

    def forget(self) -> None:
        """Clear the known objects: after a cut, and when the camera's motion is unknown."""
        self._pending: deque[_PassedFrame] = deque(maxlen=MAX_PENDING)
        self._reference: _PassedFrame | None = None
        self._boxes = np.zeros((0, 4))
        self._checked_ns = 0
        self._interval_factor = 1

    def move(self, camera_motion: np.ndarray | None) -> None:
        """Take the camera's motion since the previous frame, (3, 3) in luma pixels; None = unknown."""
        if camera_motion is None:
            self.forget()
        elif camera_motion is not IDENTITY:
            for frame in (*self._pending, self._reference):
                if frame is not None:
                    frame.motion = camera_motion @ frame.motion

    def passed(self, stamp_ns: int, luma: np.ndarray, suspected: np.ndarray) -> None:
        """Keep a frame that goes to the detector. suspected: what `changed` returned for it, or (0, 4)."""
        self._pending.append(_PassedFrame(stamp_ns, luma, IDENTITY, suspected))

    def found(self, stamp_ns: int, boxes: np.ndarray, mono_ns: int) -> None:
        """Replace the known objects by those that the detector found on a passed frame."""
        while self._pending and self._pending[0].stamp_ns < stamp_ns:
            self._pending.popleft()
        if not self._pending or self._pending[0].stamp_ns != stamp_ns:
            return
        self._reference = self._pending.popleft()
        self._boxes = boxes[np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
        self._checked_ns = mono_ns
        if len(self._reference.suspected):
            present = best_iou(self._reference.suspected, self._boxes) > STILL_PRESENT_IOU
            self._still_present += int(np.count_nonzero(present))
            self._interval_factor = (
                min(MAX_INTERVAL_FACTOR, 2 * self._interval_factor) if present.all() else 1
            )

    def changed(self, luma: np.ndarray, noise: float, mono_ns: int, interval_ms: float) -> np.ndarray:
        """The current boxes of known objects whose appearance has changed; none before the interval is over.

        noise: standard deviation in grey levels.
        """
        reference = self._reference
        if reference is None or mono_ns - self._checked_ns < self._interval_factor * interval_ms * 1e6:
            return self._boxes[:0]
        self._checked_ns = mono_ns
        self._compared += len(self._boxes)
        differs = [
            appearance_changed(reference.luma, luma, reference.motion, box, noise) for box in self._boxes
        ]
        boxes = self._boxes[np.array(differs, bool)]
        self._changed += len(boxes)
        return boxes if reference.motion is IDENTITY else transform_boxes(boxes, reference.motion)

    def status(self) -> dict[str, object]:
        """Objects compared, those that had changed, and those of them that the detector still found."""
        return {
            "appearance_check.compared": self._compared,
            "appearance_check.changed": self._changed,
            "appearance_check.still_present": self._still_present,
        }


def appearance_changed(
    before: np.ndarray, now: np.ndarray, motion: np.ndarray, box: np.ndarray, noise: float
) -> bool:
    """Whether the content of a box, (4,) xyxy, differs between two images, (h, w) uint8.

    motion: (3, 3), from before to now. False if the patch is too small or has left the image.
    """
    patch = left, top, right, bottom = _patch(box, before.shape)
    if right - left < MIN_SIDE_PX or bottom - top < MIN_SIDE_PX:
        return False
    candidate, template = _warped_patch(patch, motion, now), _warped_patch(patch, IDENTITY, before)
    if candidate is None or template is None:
        return False
    candidate = cv2.blur(candidate, (3, 3))
    # Blurred before the slack is cut off, so that both have the same pixels at their borders.
    template = cv2.blur(template, (3, 3))[SLACK_PX:-SLACK_PX, SLACK_PX:-SLACK_PX]
    correlation = float(cv2.matchTemplate(candidate, template, cv2.TM_CCOEFF_NORMED).max())
    if correlation >= SAME_CORRELATION:
        return False
    contrast = max(float(template.std()), float(candidate.std()))
    difference = contrast * np.sqrt(1.0 - max(0.0, correlation) ** 2)
    return bool(difference > max(MIN_DIFFERENCE, NOISE_FACTOR * noise))


def _patch(box: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The box with its margin, in whole pixels within the image; empty outside it."""
    low, high = box[:2], box[2:]
    margin = np.maximum(MARGIN_SHARE * (high - low), (MIN_SIDE_PX - (high - low)) / 2)
    size = np.array([shape[1], shape[0]], np.float64)
    low, high = np.clip(np.rint([low - margin, high + margin]), 0, size)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _warped_patch(
    patch: tuple[int, int, int, int], motion: np.ndarray, image: np.ndarray
) -> np.ndarray | None:
    """The pixels to which a patch has moved, with the slack; None if too few are within the image."""
    left, top, right, bottom = patch
    height, width = image.shape
    if motion is not IDENTITY:
        corners = transform_boxes(np.array([[left, top, right, bottom]], np.float64), motion)[0]
        if not np.isfinite(corners).all():
            return None
        low, high = np.maximum(corners[:2], 0.0), np.minimum(corners[2:], [width, height])
        visible = np.prod(np.maximum(high - low, 0.0))
        if visible < MIN_VISIBLE * np.prod(corners[2:] - corners[:2]):
            return None
    inverse = motion @ np.array([[1, 0, left - SLACK_PX], [0, 1, top - SLACK_PX], [0, 0, 1]], np.float64)
    size = (right - left + 2 * SLACK_PX, bottom - top + 2 * SLACK_PX)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpPerspective(image, inverse, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
