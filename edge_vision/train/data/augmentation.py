"""Changed images: other parts, mirrored, brighter or darker, blurred. The teacher runs on each of them."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.train.data.labels import visible_parts

_SIDES = {"classify": (0.3, 1.0), "detect": (0.7, 1.0)}
"""Least and largest side of a part, as a share of the image's. A classifier runs on parts of a frame."""


def augmented(
    image: np.ndarray, task: str, rng: np.random.Generator, boxes: Detections | None = None
) -> tuple[np.ndarray, Detections | None]:
    """A changed image of a size of its own, and the boxes on it; scores: times their visible share."""
    part, boxes = (_square if task == "classify" else _part)(image, rng, boxes)
    if rng.random() < 0.5:
        part, boxes = part[:, ::-1], boxes and _mirrored(boxes, part.shape[1])
    if rng.random() < 0.2:
        part = cv2.GaussianBlur(part, (0, 0), float(rng.uniform(0.5, 1.5)))
    gain, offset = rng.uniform(0.75, 1.25), rng.uniform(-20, 20)
    return np.ascontiguousarray(np.clip(part * gain + offset, 0, 255).astype(np.uint8)), boxes


Part = tuple[np.ndarray, Detections | None]


def _square(image: np.ndarray, rng: np.random.Generator, boxes: Detections | None) -> Part:
    height, width = image.shape[:2]
    side = max(1, int(rng.uniform(*_SIDES["classify"]) * min(height, width)))
    return _at(image, side, side, rng, boxes)


def _part(image: np.ndarray, rng: np.random.Generator, boxes: Detections | None) -> Part:
    """Of the image's proportions; half of them whole."""
    share = 1.0 if rng.random() < 0.5 else rng.uniform(*_SIDES["detect"])
    height, width = (max(1, int(share * side)) for side in image.shape[:2])
    return _at(image, height, width, rng, boxes)


def _at(
    image: np.ndarray, height: int, width: int, rng: np.random.Generator, boxes: Detections | None
) -> Part:
    top = int(rng.integers(image.shape[0] - height + 1))
    left = int(rng.integers(image.shape[1] - width + 1))
    part = image[top : top + height, left : left + width]
    if boxes is None:
        return part, None
    inside = visible_parts(boxes, np.array([left, top, left + width, top + height], np.float32))
    return part, replace(inside, xyxy_px=inside.xyxy_px - np.array([left, top] * 2, np.float32))


def _mirrored(boxes: Detections, width_px: int) -> Detections:
    left, top, right, bottom = boxes.xyxy_px.T
    return replace(boxes, xyxy_px=np.stack([width_px - right, top, width_px - left, bottom], axis=1))
