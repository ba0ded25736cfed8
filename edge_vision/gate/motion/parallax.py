"""Tells what is new from what only stands nearer to the camera than the rest of the scene.

A camera that travels moves near things further than far ones, so one transform for the whole picture
leaves them displaced: along the line on which the scene moves there (the epipolar line: Hartley and
Zisserman, "Multiple View Geometry", 2nd ed., chapter 9), by some multiple of that movement. A changed patch
that the anchor shows a little further along this line is therefore known, and so is the background that it
uncovers where that looks like what is beside it. What came into the picture is nowhere on that line.
"""

from __future__ import annotations

import cv2
import numpy as np

from edge_vision.gate.motion.image_diff import beyond

# Nearer things move up to this many times the scene's own movement further; things behind it lag.
AHEAD = 2.5
BEHIND = 1.0
LONGEST_PX = 60
# The envelope of 3 x 3 pixels bridges steps of this size.
STEP_PX = 2.0
PATCH_PX = 5
# The mean of a patch may be off by this share of the threshold of a pixel.
PATCH_SHARE = 0.6
MIN_SHIFT_PX = 0.5
# Along the edges of near things patches hold both layers, and fit neither: seams of this width are left out.
_SEAM = np.ones((5, 5), np.uint8)
# More blobs than this are looked at as one.
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
    """The mask without the blobs' pixels that the anchor shows further along the camera's path.

    mask: (h, w) uint8, where current differs. low, high: (h, w) uint8, envelope of the anchor as the camera's
    motion moved it. valid: 0 where the anchor shows nothing. transform: (3, 3), anchor to current.
    """
    out = mask.copy()
    back = np.linalg.inv(transform)
    for x, y, width, height in _blobs(mask):
        shift = _shift_at(back, x + width / 2, y + height / 2)
        if np.hypot(*shift) >= MIN_SHIFT_PX:
            off = _least_off((x, y, width, height), current, low, high, valid, shift)
            unknown = cv2.threshold(off, PATCH_SHARE * threshold, 255, cv2.THRESH_BINARY)[1]
            out[y : y + height, x : x + width] &= unknown
    return cv2.morphologyEx(out, cv2.MORPH_OPEN, _SEAM)


def _blobs(mask: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Boxes that hold the mask, those near each other as one."""
    joined = cv2.dilate(mask, np.ones((9, 9), np.uint8))
    contours = cv2.findContours(joined, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    if len(contours) > MAX_BLOBS:
        contours = [mask]
    boxes = [cv2.boundingRect(contour) for contour in contours]
    return [(box[0], box[1], box[2], box[3]) for box in boxes]


def _shift_at(back: np.ndarray, x: float, y: float) -> np.ndarray:
    """(2,) by how much the scene at x, y has moved; back: current to anchor."""
    at = np.array([[[x, y]]], np.float64)
    return np.asarray(at - cv2.perspectiveTransform(at, back))[0, 0]


def _least_off(
    box: tuple[int, int, int, int],
    current: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    valid: np.ndarray,
    shift: np.ndarray,
) -> np.ndarray:
    """(height, width) uint8 of the box: how far each patch is from the best patch on the shift's line."""
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
        off = beyond(low[there], high[there], now[here])
        off = cv2.max(off, cv2.bitwise_not(valid[there]))
        best[here] = cv2.min(best[here], cv2.blur(off, (PATCH_PX, PATCH_PX)))
    return best


def _offsets(shift: np.ndarray) -> list[tuple[int, int]]:
    """Whole-pixel steps from the aligned place to where nearer and further things would have come from."""
    length = float(np.hypot(*shift))
    ahead, behind = min(LONGEST_PX, AHEAD * length + 1), min(LONGEST_PX, BEHIND * length + 1)
    steps = np.arange(-behind, ahead + STEP_PX, STEP_PX)
    offsets = np.rint(-steps[:, None] * (shift / length)).astype(int)
    return [(int(dx), int(dy)) for dx, dy in offsets]
