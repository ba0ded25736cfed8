"""What heads share: activations, fast thresholding of scores, box formats, anchor-free grids."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from edge_vision.core.model_spec import InputSpec


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


def logit(probability: float) -> float:
    """The inverse of sigmoid; minus and plus infinity for 0 and 1."""
    if probability <= 0.0:
        return -math.inf
    return math.inf if probability >= 1.0 else math.log(probability / (1.0 - probability))


def softmax(logits: np.ndarray) -> np.ndarray:
    """(..., k) logits -> (..., k) with sum 1 along the last axis, without overflow.

    Minus infinity becomes 0, also where all logits are; these have the sum 0.
    """
    highest = np.maximum(logits.max(axis=-1, keepdims=True), np.finfo(np.float32).min)
    powers = np.exp(logits - highest)
    return powers / np.maximum(powers.sum(axis=-1, keepdims=True), 1.0)


# Name -> (raw value to score, score threshold to threshold on raw values).
Activation = tuple[Callable[[np.ndarray], np.ndarray], Callable[[float], float]]
ACTIVATIONS: dict[str, Activation] = {"sigmoid": (sigmoid, logit), "none": (lambda raw: raw, float)}


def at_least(values: np.ndarray, threshold: float) -> np.ndarray:
    """Flat indices of the values that reach a threshold, in order.

    Two orders of magnitude faster than np.nonzero on two dimensions if few do.
    """
    return np.flatnonzero(values >= np.float32(threshold))


def to_class_ids(classes: np.ndarray, first_class: int = 0) -> np.ndarray:
    """(n,) classes of a graph, as floats -> (n,) int32 indices of labels. Out of int16's range: clipped."""
    return np.rint(np.clip(classes, -1.0, 32767.0)).astype(np.int32) - first_class


def best_classes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 5 + classes) rows, objectness in column 4 -> (n,) best class, (n,) its score."""
    class_ids = rows[:, 5:].argmax(axis=1)
    return class_ids, rows[:, 4] * rows[np.arange(len(rows)), 5 + class_ids]


def highest_of_rows(rows: np.ndarray) -> float | None:
    """The highest score of rows as in `best_classes`; None without rows.

    A score never exceeds its objectness, so rows below the score of the most likely one are skipped.
    """
    if not len(rows):
        return None
    _, sure = best_classes(rows[rows[:, 4].argmax()][None])
    scores = best_classes(rows[at_least(rows[:, 4], float(sure[0]))])[1]
    return float(scores.max(initial=sure[0]))


BOX_UNITS = {"px": "pixels of the input tensor", "relative": "0 to 1 of its width and height"}
# Larger codes come from damaged outputs; the cap keeps their boxes finite.
MAX_EXPONENT = 20.0


def xyxy_of_centres(cxcywh: np.ndarray) -> np.ndarray:
    """(n, 4) centre x, centre y, width, height -> (n, 4) left, top, right, bottom."""
    half = cxcywh[:, 2:] * np.float32(0.5)
    return np.concatenate((cxcywh[:, :2] - half, cxcywh[:, :2] + half), axis=1)


def capped_exp(codes: np.ndarray) -> np.ndarray:
    """exp(codes), capped to stay finite."""
    return np.exp(np.minimum(codes, np.float32(MAX_EXPONENT)))


def scale_to_px(unit: str, input_spec: InputSpec) -> np.ndarray:
    """(4,) float32, factors from a unit of BOX_UNITS to pixels of the input tensor."""
    size = (input_spec.width_px, input_spec.height_px) * 2 if unit == "relative" else (1.0,) * 4
    return np.array(size, np.float32)


def grid_points(input_spec: InputSpec, strides: Sequence[int], cell_offset: float) -> np.ndarray:
    """(n, 3) float32: x, y and stride, in pixels of the input tensor, of every cell of every feature map.

    Map by map in the order of the strides, row by row. A point lies cell_offset cells into its cell. A map
    has ceil(size / stride) cells a side, as padded convolutions give.
    """
    maps = []
    for stride in strides:
        rows, columns = -(-input_spec.height_px // stride), -(-input_spec.width_px // stride)
        cells = np.empty((rows, columns, 3), np.float32)
        cells[..., 0] = (np.arange(columns) + cell_offset) * stride
        cells[..., 1] = ((np.arange(rows) + cell_offset) * stride)[:, None]
        cells[..., 2] = stride
        maps.append(cells.reshape(-1, 3))
    return np.concatenate(maps)
