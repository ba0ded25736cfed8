"""Removes changes that parallax explains: objects nearer to the camera than the rest of the scene.

A camera in translation displaces near objects further than far ones, so that one transform for the whole
image leaves them misaligned: along the epipolar line (Hartley and Zisserman, "Multiple View Geometry", 2nd
ed., chapter 9), by a multiple of the local motion. A changed patch that matches the anchor further along this
line is therefore known, and so is uncovered background that resembles its neighbourhood. An object that has
entered is not on that line.
"""

from __future__ import annotations

import cv2
import numpy as np

from edge_vision.gate.motion.image_diff import beyond

# Near objects move further by up to this multiple of the local motion; objects behind the scene lag.
AHEAD = 2.5
BEHIND = 1.0
LONGEST_PX = 60
# The envelope of 3 x 3 pixels bridges steps of this size.
STEP_PX = 2.0
PATCH_PX = 5
# The mean of a patch may be off by this share of the threshold of a pixel.
PATCH_SHARE = 0.6
MIN_SHIFT_PX = 0.5
# At the edges of near objects a patch contains both layers and matches neither: such seams are opened away.
_SEAM = np.ones((5, 5), np.uint8)
# More blobs than this are searched as one.
MAX_BLOBS = 12


def without_parallax(
    mask: np.ndarray,
    current: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    valid: np.ndarray,
    transform: np.ndarray,
    threshold: float,
) -> np.ndarray:
    """The mask without the pixels that match the anchor further along the epipolar line.

    mask: (h, w) uint8, 255 = changed. low, high: (h, w) uint8, envelope of the aligned anchor. valid: 0 where
    the anchor shows nothing. transform: (3, 3), anchor to current. threshold: grey levels.
    """
    out = mask.copy()
    to_anchor = np.linalg.inv(transform)
    for x, y, width, height in _blobs(mask):
        shift = _local_motion(to_anchor, x + width / 2, y + height / 2)
        if np.hypot(*shift) >= MIN_SHIFT_PX:
            residual = _smallest_residual((x, y, width, height), current, low, high, valid, shift)
            unknown = cv2.threshold(residual, PATCH_SHARE * threshold, 255, cv2.THRESH_BINARY)[1]
            out[y : y + height, x : x + width] &= unknown
    return cv2.morphologyEx(out, cv2.MORPH_OPEN, _SEAM)


def _blobs(mask: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Boxes (x, y, width, height) around the mask; blobs near each other share one."""
    joined = cv2.dilate(mask, np.ones((9, 9), np.uint8))
    contours = cv2.findContours(joined, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    if len(contours) > MAX_BLOBS:
        contours = [mask]
    boxes = [cv2.boundingRect(contour) for contour in contours]
    return [(box[0], box[1], box[2], box[3]) for box in boxes]


def _local_motion(to_anchor: np.ndarray, x: float, y: float) -> np.ndarray:
    """(2,) motion of the scene at a point of the current image, in pixels."""
    point = np.array([[[x, y]]], np.float64)
    return np.asarray(point - cv2.perspectiveTransform(point, to_anchor))[0, 0]


def _smallest_residual(
    box: tuple[int, int, int, int],
    current: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    valid: np.ndarray,
    shift: np.ndarray,
) -> np.ndarray:
    """(height, width) uint8: for each patch of the box, the distance to its best match along the shift."""
    x, y, width, height = box
    now = current[y : y + height, x : x + width]
    rows, columns = current.shape
    best = np.full(now.shape, 255, np.uint8)
    for dx, dy in _offsets(shift):
        left, top = x + dx, y + dy
        x0, y0, x1, y1 = max(0, left), max(0, top), min(columns, left + width), min(rows, top + height)
        if x1 <= x0 or y1 <= y0:
            continue
        here = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        there = (slice(y0, y1), slice(x0, x1))
        residual = beyond(low[there], high[there], now[here])
        residual = cv2.max(residual, cv2.bitwise_not(valid[there]))
        best[here] = cv2.min(best[here], cv2.blur(residual, (PATCH_PX, PATCH_PX)))
    return best


def _offsets(shift: np.ndarray) -> list[tuple[int, int]]:
    """Whole-pixel offsets from the aligned position to those of nearer and farther objects."""
    length = float(np.hypot(*shift))
    ahead, behind = min(LONGEST_PX, AHEAD * length + 1), min(LONGEST_PX, BEHIND * length + 1)
    steps = np.arange(-behind, ahead + STEP_PX, STEP_PX)
    offsets = np.rint(-steps[:, None] * (shift / length)).astype(int)
    return [(int(dx), int(dy)) for dx, dy in offsets]
