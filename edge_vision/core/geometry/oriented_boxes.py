"""Overlap of oriented boxes, (n, 5) centre x, centre y, width, height, angle in radians."""

from __future__ import annotations

import numpy as np

from edge_vision.core.object_shapes import oriented_corners

_EPS = 1e-7


def enclosing_boxes(boxes: np.ndarray) -> np.ndarray:
    """(n, 4) xyxy, the smallest axis-aligned boxes around oriented ones."""
    corners = oriented_corners(boxes)
    return np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)


def canonical_angles(boxes: np.ndarray) -> np.ndarray:
    """The same boxes with angles of 0 to pi / 2; width and height are exchanged where necessary."""
    turned = boxes[:, 4] % np.pi >= np.pi / 2
    result = boxes.copy()
    result[turned, 2], result[turned, 3] = boxes[turned, 3], boxes[turned, 2]
    result[:, 4] = boxes[:, 4] % (np.pi / 2)
    return result


def prob_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) similarity, 0 to 1, of (n, 5) and (m, 5) boxes.

    Source: Llerena et al., "Gaussian Bounding Boxes and Probabilistic Intersection-over-Union for Object
    Detection" (2021, arXiv 2106.06072): 1 - the Hellinger distance of the boxes as Gaussians.
    """
    (xa, ya), (xb, yb) = a[:, :2].T[..., None], b[:, None, :2].T
    a1, b1, c1 = (value[:, None] for value in _covariances(a))
    a2, b2, c2 = (value[None] for value in _covariances(b))
    determinant = (a1 + a2) * (b1 + b2) - (c1 + c2) ** 2
    squares = (a1 + a2) * (ya - yb) ** 2 + (b1 + b2) * (xa - xb) ** 2
    crossed = (c1 + c2) * (xb - xa) * (ya - yb)
    own = np.sqrt(np.maximum(a1 * b1 - c1**2, 0.0) * np.maximum(a2 * b2 - c2**2, 0.0))
    spread = 0.5 * np.log(determinant / (4.0 * own + _EPS) + _EPS)
    distance = np.clip((0.25 * squares + 0.5 * crossed) / (determinant + _EPS) + spread, _EPS, 100.0)
    return np.asarray(1.0 - np.sqrt(1.0 - np.exp(-distance) + _EPS))


def oriented_overlaps(
    boxes: np.ndarray, class_ids: np.ndarray, first: np.ndarray, second: np.ndarray, iou_threshold: float
) -> np.ndarray:
    """As `boxes.overlaps`, by `prob_iou`."""
    same = class_ids[first, None] == class_ids[None, second]
    return np.asarray((prob_iou(boxes[first], boxes[second]) > iou_threshold) & same)


def _covariances(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Variances along x and y, and the covariance, of uniform distributions over the boxes."""
    across, down = (boxes[:, 2:4].astype(np.float64) ** 2 / 12.0).T
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    return (across * cos**2 + down * sin**2, across * sin**2 + down * cos**2, (across - down) * cos * sin)
