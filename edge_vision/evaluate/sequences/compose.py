"""Puts cut-out objects on a picture, with sub-pixel places and soft edges."""

from __future__ import annotations

import cv2
import numpy as np

from edge_vision.evaluate.sequences.actors import Placed
from edge_vision.evaluate.sequences.camera import HEIGHT_PX, WIDTH_PX
from edge_vision.evaluate.sequences.cutouts import Cutout

Box = tuple[float, float, float, float]
LEAST_VISIBLE_PX = 4.0


def paste(image: np.ndarray, picture: Cutout, affine: np.ndarray) -> None:
    """Blend a cut-out into image (h, w, 3) uint8, in place. affine: (2, 3), its pixels to those of image."""
    h, w = picture.alpha.shape
    left, top, right, bottom = _bounds(affine, (0.0, 0.0, float(w), float(h)))
    x0, y0 = max(0, int(left) - 1), max(0, int(top) - 1)
    x1, y1 = min(image.shape[1], int(right) + 2), min(image.shape[0], int(bottom) + 2)
    if x1 <= x0 or y1 <= y0:
        return
    moved = affine.copy()
    moved[:, 2] -= (x0, y0)
    size = (x1 - x0, y1 - y0)
    color = cv2.warpAffine(picture.color, moved, size)
    alpha = cv2.warpAffine(picture.alpha, moved, size)
    window = image[y0:y1, x0:x1]
    kept = cv2.multiply(window, cv2.merge([255 - alpha] * 3), scale=1 / 255)
    cv2.add(kept, color, dst=window)


def placed_affine(placed: Placed, camera: np.ndarray) -> np.ndarray:
    """(2, 3): the pixels of the object's picture to the screen. Its foot is the middle of its lower edge."""
    picture = placed.sprite.pictures[placed.picture]
    left, _, right, bottom = picture.box_px
    sx = -placed.scale if placed.flip else placed.scale
    x, y = placed.foot_px
    to_world = np.array([[sx, 0, x - sx * (left + right) / 2], [0, placed.scale, y - placed.scale * bottom]])
    result = camera[:, :2] @ to_world
    result[:, 2] += camera[:, 2]
    return np.asarray(result)


def visible_box(picture: Cutout, affine: np.ndarray) -> Box | None:
    """The part of the object's box that is on the screen; None where that is next to nothing."""
    return _on_screen(*_bounds(affine, picture.box_px))


def visible_part(box: Box, camera: np.ndarray) -> Box | None:
    """What is on the screen of a box in background pixels; None where that is next to nothing."""
    left, top, right, bottom = _bounds(camera, box)
    return _on_screen(left, top, right, bottom)


def _on_screen(left: float, top: float, right: float, bottom: float) -> Box | None:
    left, right = max(0.0, left), min(float(WIDTH_PX), right)
    top, bottom = max(0.0, top), min(float(HEIGHT_PX), bottom)
    if right - left < LEAST_VISIBLE_PX or bottom - top < LEAST_VISIBLE_PX:
        return None
    return (left, top, right, bottom)


def _bounds(affine: np.ndarray, box: Box) -> Box:
    left, top, right, bottom = box
    corners = np.array([[left, right, right, left], [top, top, bottom, bottom], [1, 1, 1, 1]], np.float64)
    x, y = affine @ corners
    return (float(x.min()), float(y.min()), float(x.max()), float(y.max()))
