"""Greedy non-maximum suppression, exact, per class."""

from __future__ import annotations

import numpy as np

# Candidates are taken best first in groups of this size. Up to it, one overlap matrix does all; beyond it,
# a group is only looked at while there is still room for detections. Measured best between 64 and 256.
_GROUP = 128


def nms(
    xyxy: np.ndarray,
    scores: np.ndarray,
    class_ids: np.ndarray,
    iou_threshold: float,
    max_detections: int,
) -> np.ndarray:
    """Which boxes to keep: best score first, none overlapping a better one of its own class too much.

    xyxy: (n, 4) float32, any unit. scores: (n,). class_ids: (n,). Two boxes overlap too much where their
    intersection over union is greater than iou_threshold; a box without area overlaps nothing.
    Returns (k,) indices, k <= max_detections; equal scores keep their order.

    Taking all classes together in order of score, and comparing within a class only, gives what one run per
    class and a final sort give, as in TensorFlow's object detection API, and can stop at max_detections.
    """
    order = np.argsort(-scores, kind="stable")
    kept = np.zeros(0, np.intp)
    for start in range(0, len(order), _GROUP):
        group = order[start : start + _GROUP]
        if len(kept):
            group = group[~overlaps(xyxy, class_ids, kept, group, iou_threshold).any(axis=0)]
        kept = np.concatenate((kept, _greedy(group, overlaps(xyxy, class_ids, group, group, iou_threshold))))
        if len(kept) >= max_detections:
            break
    return kept[:max_detections]


def overlaps(
    xyxy: np.ndarray, class_ids: np.ndarray, first: np.ndarray, second: np.ndarray, iou_threshold: float
) -> np.ndarray:
    """(len(first), len(second)) bool: same class, and intersection over union above the threshold."""
    a, b = xyxy[first, None], xyxy[None, second]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    np.maximum(sides, 0.0, out=sides)
    intersection = sides[..., 0] * sides[..., 1]
    union = _area(a) + _area(b) - intersection
    # Multiplied out, so that boxes without area need no division by zero.
    too_much = intersection > np.float32(iou_threshold) * union
    return too_much & (class_ids[first, None] == class_ids[None, second])


def _area(xyxy: np.ndarray) -> np.ndarray:
    return (xyxy[..., 2] - xyxy[..., 0]) * (xyxy[..., 3] - xyxy[..., 1])


def _greedy(group: np.ndarray, too_much: np.ndarray) -> np.ndarray:
    """Of a group sorted best first, those that no kept one suppresses."""
    alive = np.ones(len(group), bool)
    for i in range(len(group)):
        if alive[i]:
            alive[i + 1 :] &= ~too_much[i, i + 1 :]
    return group[alive]
