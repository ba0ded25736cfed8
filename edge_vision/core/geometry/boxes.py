"""Overlap, matching and non-maximum suppression of boxes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_vision.core.detections import Detections

NO_REGIONS = np.zeros((0, 4), np.float32)
SAME_OBJECT_IOU = 0.3
"""A box with this IoU counts as a detection of an object: it informs a consumer of its presence."""
SAME_BOX_IOU = 0.5
"""Two boxes of one class with this IoU are the same detection, as in COCO's first threshold."""


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) intersection over union of (n, 4) and (m, 4) xyxy boxes; 0 for a box without area."""
    both, areas = _intersections(a, b)
    return np.asarray(both / np.maximum(areas - both, 1e-9))


def _intersections(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, m) areas of the intersections, and sums of both areas; a box without area has 0.

    One coordinate at a time: numpy takes five times as long over a last axis of two or four.
    """
    rows, columns = a.T.copy()[:, :, None], b.T.copy()
    width = np.minimum(rows[2], columns[2]) - np.maximum(rows[0], columns[0])
    height = np.minimum(rows[3], columns[3]) - np.maximum(rows[1], columns[1])
    both = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    return both, _area(rows) + _area(columns)


def _area(sides: np.ndarray) -> np.ndarray:
    """The areas of boxes whose first axis is left, top, right, bottom."""
    size = np.maximum(sides[2:] - sides[:2], 0.0)
    return np.asarray(size[0] * size[1])


def best_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,) for each box of a, the highest IoU with a box of b; 0 if b is empty."""
    if len(b) == 0:
        return np.zeros(len(a))
    return np.asarray(iou_matrix(a, b).max(axis=1))


def true_positives(published: Detections, reference: Detections) -> int:
    """Number of one-to-one matches: same class, IoU at least SAME_BOX_IOU, greedy by IoU."""
    if not len(published) or not len(reference):
        return 0
    iou = iou_matrix(published.xyxy_px, reference.xyxy_px)
    iou[published.class_ids[:, None] != reference.class_ids[None]] = 0.0
    pairs = np.argwhere(iou >= SAME_BOX_IOU)
    order = np.argsort(-iou[pairs[:, 0], pairs[:, 1]], kind="stable")
    return len(greedy_pairs(*pairs[order].T.tolist())[0])


def greedy_pairs(rows: list[int], columns: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Take pairs in order, skipping those with a row or column that is already taken."""
    taken: dict[int, int] = {}
    taken_columns: set[int] = set()
    for row, column in zip(rows, columns, strict=True):
        if row not in taken and column not in taken_columns:
            taken[row] = column
            taken_columns.add(column)
    return np.array([*taken], np.intp), np.array([*taken.values()], np.intp)


Overlaps = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float], np.ndarray]
"""As `overlaps`."""
# Candidates are processed in groups of this size, best first, until max_detections are kept. Fastest between
# 64 and 256.
_GROUP = 128
MAX_CANDIDATES = 3000
"""NMS considers only the best candidates: at a score threshold of 0, each anchor has one for each class."""


def nms(
    xyxy: np.ndarray,
    scores: np.ndarray,
    class_ids: np.ndarray,
    iou_threshold: float,
    max_detections: int,
    overlap_test: Overlaps | None = None,
) -> np.ndarray:
    """Indices of the boxes to keep, sorted by descending score.

    xyxy: (n, 4) float32, any unit. scores: (n,). class_ids: (n,). A box is suppressed by a better one
    of its class with an IoU above iou_threshold; an empty box overlaps nothing. Returns (k,) indices,
    k <= max_detections; equal scores keep their order. Only the best MAX_CANDIDATES can be kept.
    overlap_test: replaces `overlaps`, for boxes of another form.

    Processing all classes in order of score gives the same result as one run per class and a final sort, as
    in TensorFlow's object detection API, and can stop at max_detections.
    """
    test = overlap_test or overlaps
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    kept = np.zeros(0, np.intp)
    for start in range(0, len(order), _GROUP):
        group = order[start : start + _GROUP]
        if len(kept):
            group = group[~test(xyxy, class_ids, kept, group, iou_threshold).any(axis=0)]
        kept = np.concatenate((kept, _greedy(group, test(xyxy, class_ids, group, group, iou_threshold))))
        if len(kept) >= max_detections:
            break
    return kept[:max_detections]


def overlaps(
    xyxy: np.ndarray, class_ids: np.ndarray, first: np.ndarray, second: np.ndarray, iou_threshold: float
) -> np.ndarray:
    """(len(first), len(second)) bool: same class and IoU above the threshold."""
    both, areas = _intersections(xyxy[first], xyxy[second])
    # Multiplied out to avoid a division by zero for empty boxes.
    suppresses = both > np.float32(iou_threshold) * (areas - both)
    suppresses &= class_ids[first, None] == class_ids[second]
    return suppresses


def _greedy(group: np.ndarray, suppresses: np.ndarray) -> np.ndarray:
    """The boxes of a group, sorted best first, that no kept one suppresses."""
    alive = np.ones(len(group), bool)
    for i in range(len(group)):
        if alive[i]:
            alive[i + 1 :] &= ~suppresses[i, i + 1 :]
    return group[alive]
