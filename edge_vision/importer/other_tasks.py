"""Recognises outputs of other tasks whose shapes resemble a detector's, by the values of one run."""

from __future__ import annotations

import numpy as np

from edge_vision.detect.heads.base import SCORE_TOLERANCE
from edge_vision.errors import BundleError
from edge_vision.importer.head_evidence import HeadEvidence, format_shape, in_unit_interval

# A coordinate in pixels exceeds this somewhere on the grid; a score or a visibility never does.
_MIN_PX = 4.0
# Fewer columns than those of three points may be wide by chance. Spread: 10th to 90th percentile.
_MIN_RELATIVE, _MAX_BACKGROUND, _MIN_SPREAD = 6, 0.1, 0.5
_ANGLES = (-1.6, 3.2)  # Radians; published models have -pi / 4 to 3 pi / 4.
_MIN_ANGLE = 0.1  # Angles on noise are about pi / 4, scores about 0.


def refuse(evidence: HeadEvidence) -> None:
    """Raise BundleError for key points, oriented boxes, and columns whose scores are not from 0 to 1."""
    one = evidence.single(3)
    if one is None or one.name not in evidence.values:
        return
    values, shape = evidence.values[one.name][0], format_shape(one.shape)
    columns = bool(evidence.strides_of(values.shape[1]))
    if not columns and not evidence.strides_of(values.shape[0]):
        return
    scores = (values if columns else values.T)[4:].astype(np.float32)
    if _is_pose(scores):
        raise BundleError(f"expected boxes and class scores, got {shape}: a pose model, not supported")
    if _is_oriented(scores, columns):
        raise BundleError(f"expected boxes and class scores, got {shape}: oriented boxes, not supported")
    if columns and scores.size and _exceeds_unit_interval(scores):
        raise BundleError(
            f"expected class scores from 0 to 1, got {scores.min():.4g} to {scores.max():.4g} in {shape}: "
            f"logits, or a model of another task? Export the model with its sigmoid: this head has no "
            f"score_activation"
        )


def _is_pose(scores: np.ndarray) -> bool:
    """Whether (k, n) are one score, then x and y of key points, each with a visibility or not.

    Coordinates are in pixels, or relative: then they cover 0 to 1, and the score is near 0 on noise.
    """
    points = scores[1:]
    if not len(points) or not in_unit_interval(scores[0]):
        return False
    coordinates = np.abs(points).max(axis=1) > _MIN_PX
    if len(points) >= _MIN_RELATIVE and in_unit_interval(points) and np.median(scores[0]) < _MAX_BACKGROUND:
        coordinates = np.ptp(np.percentile(points, (10, 90), axis=1), axis=0) > _MIN_SPREAD
    with_visibility = len(points) % 3 == 0 and in_unit_interval(points[2::3])
    if with_visibility and coordinates[0::3].all() and coordinates[1::3].all():
        return True
    return len(points) % 2 == 0 and bool(coordinates.all())


def _is_oriented(scores: np.ndarray, columns: bool) -> bool:
    """Whether the last of (k, n) rows is an angle and the others are scores.

    On noise, all angles may be within 0 to 1; then all are far above the scores.
    """
    others, last = scores[:-1], scores[-1:]
    if not len(others) or not in_unit_interval(others):
        return False
    if not in_unit_interval(last):
        return bool(last.min() >= _ANGLES[0] and last.max() <= _ANGLES[1])
    return columns and bool(last.min() > max(float(others.max()), _MIN_ANGLE))


def _exceeds_unit_interval(scores: np.ndarray) -> bool:
    return bool(scores.min() < -SCORE_TOLERANCE or scores.max() > 1 + SCORE_TOLERANCE)
