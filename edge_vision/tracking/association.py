"""Which known object is which detection."""

from __future__ import annotations

import math

import numpy as np

from edge_vision.tracking.kalman import BOX, CLASS_ID, MEASURED_SD, TrackSet

GATE = 9.21
"""Chi-square with 2 degrees of freedom at 99 %: what is further off is another object."""
SURE_IOU = 0.3
"""What overlaps this much may be the same object however unlikely its way."""
MAX_SIZE_RATIO = 2.0
SHIFT_SIZE_RATIO = 1.3
SHIFT_SIDES = 0.3
"""Displacements that differ by less than this share of a side are the same."""
SHIFT_VOTES = 2
MAX_SHIFTS = 400
"""Of more pairs, too many agree by chance, and it would take too long."""
_NONE = np.zeros(0, np.intp)
FEW_PAIRS = 400
"""So many are compared all at once; of more, only those that are within reach: faster for 20 objects on."""


def matched(tracks: TrackSet, measured: np.ndarray, class_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which track is which detection: two (k,) index arrays. Most alike first, each once, within a class.

    measured: (4, m) centre and size. class_ids: (m,).
    """
    if len(tracks) == 0 or len(class_ids) == 0:
        return _NONE, _NONE
    box, var = tracks.state[BOX], tracks.state[8:10]
    same_class = tracks.facts[CLASS_ID, :, None] == class_ids
    if same_class.size <= FEW_PAIRS:
        fits, alike = _compared(box[:, :, None], var[:, :, None], measured[:, None, :])
        fits &= same_class
        rows, columns = fits.nonzero()
        alike = alike[fits]
    else:
        rows, columns = (_within_reach(box, var, measured) & same_class).nonzero()
        fits, alike = _compared(box.take(rows, 1), var.take(rows, 1), measured.take(columns, 1))
        rows, columns, alike = rows[fits], columns[fits], alike[fits]
    order = (-alike).argsort(kind="stable")
    return _each_once(rows.take(order).tolist(), columns.take(order).tolist())


def _within_reach(box: np.ndarray, var: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(n tracks, m measured) bool: a rough test that spares most pairs the exact one, and loses none."""
    side = np.sqrt(measured[2] * measured[3])
    reach = box[2:] / 2 + np.sqrt(GATE * var)
    other_reach = measured[2:] / 2 + (math.sqrt(GATE) * MEASURED_SD) * side
    near = np.ones((box.shape[1], measured.shape[1]), bool)
    for i in (0, 1):
        step = np.abs(box[i, :, None] - measured[i])
        near &= step <= reach[i, :, None] + other_reach[i]
    return near


def _compared(box: np.ndarray, var: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which boxes and measurements, (4, ...) centre and size, may be the same object, and how alike they are.

    Overlap alone says nothing of a small fast object after a second, distance alone nothing within a crowd.
    """
    size, other_size = box[2:], other[2:]
    area, other_area = size[0] * size[1], other_size[0] * other_size[1]
    step = box[:2] - other[:2]
    both_sizes, smaller = size + other_size, np.minimum(size, other_size)
    # The squared distance of the centres in standard deviations (Mahalanobis).
    far = step * step
    far /= var + MEASURED_SD**2 * other_area
    far = far[0] + far[1]
    # Two intervals share half of their lengths less the distance of their middles, at most the shorter one.
    sides = both_sizes / 2
    sides -= np.abs(step)
    np.minimum(sides, smaller, out=sides)
    np.maximum(sides, 0.0, out=sides)
    both = sides[0] * sides[1]
    iou = both / (area + other_area - both)
    # The larger is less than so many times the smaller.
    alike_size = both_sizes < (1.0 + MAX_SIZE_RATIO) * smaller
    fits = (far < GATE) | (iou > SURE_IOU)
    fits &= alike_size[0]
    fits &= alike_size[1]
    far /= GATE
    return fits, iou - far


def _each_once(rows: list[int], columns: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Take pairs in their order, leaving out those of which one half was taken."""
    taken: dict[int, int] = {}
    taken_columns: set[int] = set()
    for row, column in zip(rows, columns, strict=True):
        if row not in taken and column not in taken_columns:
            taken[row] = column
            taken_columns.add(column)
    return np.array([*taken], np.intp), np.array([*taken.values()], np.intp)


def common_shift(tracks: TrackSet, measured: np.ndarray, class_ids: np.ndarray) -> np.ndarray | None:
    """(2, 1) px by which most tracks are beside a detection of their class and size; None where no two agree.

    That is what a camera's motion does that nobody has told: all boxes are wrong alike, and none is within
    reach.
    """
    box = tracks.state[BOX]
    ratio = box[2:, :, None] / measured[2:, None, :]
    alike = ((ratio < SHIFT_SIZE_RATIO) & (ratio > 1.0 / SHIFT_SIZE_RATIO)).all(axis=0)
    rows, columns = np.nonzero(alike & (tracks.facts[CLASS_ID, :, None] == class_ids))
    if not SHIFT_VOTES <= len(rows) <= MAX_SHIFTS:
        return None
    step = measured[:2, columns] - box[:2, rows]
    limit = SHIFT_SIDES * np.sqrt(measured[2, columns] * measured[3, columns])
    agree = (np.abs(step[:, :, None] - step[:, None]) < limit[:, None]).all(axis=0)
    # A track votes once, however many detections are around it.
    votes = (agree @ (rows[:, None] == np.arange(len(tracks)))).astype(bool).sum(axis=1)
    best = int(np.argmax(votes))
    if votes[best] < SHIFT_VOTES:
        return None
    return np.median(step[:, agree[best]], axis=1, keepdims=True)
