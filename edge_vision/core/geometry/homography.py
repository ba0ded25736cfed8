"""Homographies: (3, 3) float64, map points of one image to another."""

from __future__ import annotations

import cv2
import numpy as np

IDENTITY = np.eye(3)
# Pixels at the border of a warped image are interpolated with pixels outside it.
MARGIN_PX = 2


def warp(image: np.ndarray, transform: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The warped image, and a mask (h, w) uint8 that is 0 outside it; None if it is valid everywhere."""
    if transform is IDENTITY:
        return image, None
    height, width = image.shape
    if transform[2, 0] == 0.0 == transform[2, 1]:  # An affine warp takes half of the time.
        warped = cv2.warpAffine(image, transform[:2], (width, height), borderMode=cv2.BORDER_REPLICATE)
    else:
        warped = cv2.warpPerspective(image, transform, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return warped, _inside_mask(transform, (height, width))


def _inside_mask(transform: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(h, w) uint8, 255 inside the warped image without MARGIN_PX."""
    low, right, bottom = MARGIN_PX, shape[1] - 1 - MARGIN_PX, shape[0] - 1 - MARGIN_PX
    corners = np.array([[[low, low]], [[right, low]], [[right, bottom]], [[low, bottom]]], np.float64)
    mask = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(mask, np.rint(cv2.perspectiveTransform(corners, transform)).astype(np.int32), (255,))
    return mask


def overlap(transform: np.ndarray, shape: tuple[int, ...]) -> float:
    """Share of the image that the warped image covers."""
    height, width = shape[:2]
    frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    warped = cv2.perspectiveTransform(frame[:, None].astype(np.float64), transform)[:, 0].astype(np.float32)
    area, _ = cv2.intersectConvexConvex(frame, warped)
    return float(min(1.0, area / (width * height)))


def scaled(transform: np.ndarray, scale: float) -> np.ndarray:
    """A transform between images as one between images that are `scale` times as large."""
    if scale == 1.0 or transform is IDENTITY:
        return transform
    out = transform.copy()
    out[:2, 2] *= scale
    out[2, :2] /= scale
    return out


def transform_boxes(boxes: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """(n, 4) float64 xyxy: boxes (n, 4) with both corners transformed."""
    if len(boxes) == 0:
        return np.zeros((0, 4))
    corners = boxes.reshape(-1, 1, 2).astype(np.float64)
    return np.asarray(cv2.perspectiveTransform(corners, transform), np.float64).reshape(-1, 4)
