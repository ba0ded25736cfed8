"""Activations, their inverses, and fast thresholding of scores."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np


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
