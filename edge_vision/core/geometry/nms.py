"""Greedy non-maximum suppression, exact, per class."""

from __future__ import annotations

import numpy as np

# Candidates are processed in groups of this size, best first, until max_detections are kept. Fastest between
# 64 and 256.
_GROUP = 128


def nms(
    xyxy: np.ndarray,
    scores: np.ndarray,
    class_ids: np.ndarray,
    iou_threshold: float,
    max_detections: int,
) -> np.ndarray:
    """Indices of the boxes to keep, sorted by descending score.

    xyxy: (n, 4) float32, any unit. scores: (n,). class_ids: (n,). A box is suppressed by a better one
    of its class with an IoU above iou_threshold; an empty box overlaps nothing. Returns (k,) indices,
    k <= max_detections; equal scores keep their order.

    Processing all classes in order of score gives the same result as one run per class and a final sort, as
    in TensorFlow's object detection API, and can stop at max_detections.
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
    """(len(first), len(second)) bool: same class and IoU above the threshold."""
    a, b = xyxy[first, None], xyxy[None, second]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    np.maximum(sides, 0.0, out=sides)
    intersection = sides[..., 0] * sides[..., 1]
    union = _area(a) + _area(b) - intersection
    # Multiplied out to avoid a division by zero for empty boxes.
    suppresses = intersection > np.float32(iou_threshold) * union
    return suppresses & (class_ids[first, None] == class_ids[None, second])


def _area(xyxy: np.ndarray) -> np.ndarray:
    return (xyxy[..., 2] - xyxy[..., 0]) * (xyxy[..., 3] - xyxy[..., 1])


def _greedy(group: np.ndarray, suppresses: np.ndarray) -> np.ndarray:
    """The boxes of a group, sorted best first, that no kept one suppresses."""
    alive = np.ones(len(group), bool)
    for i in range(len(group)):
        if alive[i]:
            alive[i + 1 :] &= ~suppresses[i, i + 1 :]
    return group[alive]
