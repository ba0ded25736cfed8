"""Homographies: (3, 3) float64, map points of one image to another."""

from __future__ import annotations

import cv2
import numpy as np

IDENTITY = np.eye(3)


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
