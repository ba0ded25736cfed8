"""Overlap and matching of boxes."""

from __future__ import annotations

import numpy as np

from edge_vision.core.detections import Detections

NO_REGIONS = np.zeros((0, 4), np.float32)
SAME_OBJECT_IOU = 0.3
"""A box with this IoU counts as a detection of an object: it informs a consumer of its presence."""
SAME_BOX_IOU = 0.5
"""Two boxes of one class with this IoU are the same detection, as in COCO's first threshold."""


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) intersection over union of (n, 4) and (m, 4) xyxy boxes; 0 for a box without area."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    both = np.prod(np.maximum(sides, 0.0), axis=2)
    area_a = np.prod(np.maximum(a[:, 2:] - a[:, :2], 0.0), axis=1)
    area_b = np.prod(np.maximum(b[:, 2:] - b[:, :2], 0.0), axis=1)
    return np.asarray(both / np.maximum(area_a[:, None] + area_b[None] - both, 1e-9))


def best_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,) for each box of a, the highest IoU with a box of b; 0 if b is empty."""
    if len(b) == 0:
        return np.zeros(len(a))
    return np.asarray(iou_matrix(a, b).max(axis=1))


def overlaps_object(found: Detections, box: np.ndarray) -> bool:
    """Whether a detection of any class overlaps an object's box (4,) by SAME_OBJECT_IOU."""
    return len(found) > 0 and bool(iou_matrix(found.xyxy_px, box[None]).max() >= SAME_OBJECT_IOU)


def true_positives(published: Detections, reference: Detections) -> int:
    """Number of one-to-one matches: same class, IoU at least SAME_BOX_IOU, greedy by IoU."""
    if not len(published) or not len(reference):
        return 0
    iou = iou_matrix(published.xyxy_px, reference.xyxy_px)
    iou[published.class_ids[:, None] != reference.class_ids[None]] = 0.0
    pairs = np.argwhere(iou >= SAME_BOX_IOU)
    order = np.argsort(-iou[pairs[:, 0], pairs[:, 1]], kind="stable")
    rows: set[int] = set()
    columns: set[int] = set()
    for row, column in pairs[order].tolist():
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
    return len(rows)
