"""Changed images: other parts, mirrored, brighter or darker, blurred. The teacher runs on each of them."""

from __future__ import annotations

import cv2
import numpy as np

_SIDES = {"classify": (0.3, 1.0), "detect": (0.7, 1.0)}
"""Least and largest side of a part, as a share of the image's. A classifier runs on parts of a frame."""


def augmented(image: np.ndarray, task: str, rng: np.random.Generator) -> np.ndarray:
    """A changed image of a size of its own."""
    part = _square(image, rng) if task == "classify" else _part(image, rng)
    if rng.random() < 0.5:
        part = part[:, ::-1]
    if rng.random() < 0.2:
        part = cv2.GaussianBlur(part, (0, 0), float(rng.uniform(0.5, 1.5)))
    gain, offset = rng.uniform(0.75, 1.25), rng.uniform(-20, 20)
    return np.ascontiguousarray(np.clip(part * gain + offset, 0, 255).astype(np.uint8))


def _square(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    side = max(1, int(rng.uniform(*_SIDES["classify"]) * min(height, width)))
    return _at(image, side, side, rng)


def _part(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Of the image's proportions; half of them whole."""
    share = 1.0 if rng.random() < 0.5 else rng.uniform(*_SIDES["detect"])
    height, width = (max(1, int(share * side)) for side in image.shape[:2])
    return _at(image, height, width, rng)


def _at(image: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    top = int(rng.integers(image.shape[0] - height + 1))
    left = int(rng.integers(image.shape[1] - width + 1))
    return image[top : top + height, left : left + width]
