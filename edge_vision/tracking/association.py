"""Association of tracks with detections."""

from __future__ import annotations

import math

import numpy as np

from edge_vision.core.geometry.boxes import greedy_pairs
from edge_vision.tracking.kalman import BOX, CLASS_ID, MEASURED_SD, SPEED, USED_SPEED, VAR, TrackSet

CHI2_GATE = 9.21
"""Chi-square with 2 degrees of freedom at 99 %: a detection beyond this distance is another object."""
MIN_IOU = 0.3
"""Boxes that overlap this much may be the same object at any Mahalanobis distance."""
MAX_SIZE_RATIO = 2.0
SHIFT_SIZE_RATIO = 1.3
SHIFT_SIDES = 0.3
"""Displacements that differ by less than this share of a side agree."""
SHIFT_VOTES = 2
MAX_SHIFTS = 400
"""With more pairs too many agree by chance, and voting takes too long."""
_NONE = np.zeros(0, np.intp)
MAX_DENSE_PAIRS = 400
"""Up to this many pairs are all compared; above, a coarse test selects them: faster from 20 objects on."""


def match(
    tracks: TrackSet, box: np.ndarray, measured: np.ndarray, class_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Greedy one-to-one matching within each class, best pairs first: (k,) tracks, (k,) detections, as
    indices.

    box: (4, n) centre and size of the tracks; measured: (4, m), of the detections. class_ids: (m,).
    """
    if len(tracks) == 0 or len(class_ids) == 0:
        return _NONE, _NONE
    var = tracks.state[VAR]
    same_class = tracks.info[CLASS_ID, :, None] == class_ids
    if same_class.size <= MAX_DENSE_PAIRS:
        fits, similar = _similarity(box[:, :, None], var[:, :, None], measured[:, None, :])
        fits &= same_class
        rows, columns = fits.nonzero()
        similar = similar[fits]
    else:
        rows, columns = (_within_reach(box, var, measured) & same_class).nonzero()
        fits, similar = _similarity(box.take(rows, 1), var.take(rows, 1), measured.take(columns, 1))
        rows, columns, similar = rows[fits], columns[fits], similar[fits]
    order = (-similar).argsort(kind="stable")
    return greedy_pairs(rows.take(order).tolist(), columns.take(order).tolist())


def _within_reach(box: np.ndarray, var: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(n tracks, m measured) bool: a coarse test that never rejects a possible match."""
    side = np.sqrt(measured[2] * measured[3])
    reach = box[2:] / 2 + np.sqrt(CHI2_GATE * var)
    other_reach = measured[2:] / 2 + (math.sqrt(CHI2_GATE) * MEASURED_SD) * side
    near = np.ones((box.shape[1], measured.shape[1]), bool)
    for i in (0, 1):
        step = np.abs(box[i, :, None] - measured[i])
        near &= step <= reach[i, :, None] + other_reach[i]
    return near


def _similarity(box: np.ndarray, var: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which boxes and measurements, (4, ...) centre and size, may be the same object, and their similarity.

    Small fast objects do not overlap after a second, and distance is ambiguous in a crowd; so both are used.
    """
    size, other_size = box[2:], other[2:]
    area, other_area = size[0] * size[1], other_size[0] * other_size[1]
    step = box[:2] - other[:2]
    both_sizes, smaller = size + other_size, np.minimum(size, other_size)
    # Squared Mahalanobis distance of the centres.
    far = step * step
    far /= var + MEASURED_SD**2 * other_area
    far = far[0] + far[1]
    # Overlap of two intervals: half of their total length minus the distance of their centres, at most the
    # length of the shorter one.
    sides = both_sizes / 2
    sides -= np.abs(step)
    np.minimum(sides, smaller, out=sides)
    np.maximum(sides, 0.0, out=sides)
    both = sides[0] * sides[1]
    iou = both / (area + other_area - both)
    # Equivalent to larger < MAX_SIZE_RATIO * smaller.
    similar_size = both_sizes < (1.0 + MAX_SIZE_RATIO) * smaller
    fits = (far < CHI2_GATE) | (iou > MIN_IOU)
    fits &= similar_size[0]
    fits &= similar_size[1]
    far /= CHI2_GATE
    return fits, iou - far


def common_shift(tracks: TrackSet, measured: np.ndarray, class_ids: np.ndarray) -> np.ndarray | None:
    """(2, 1) px, displacement of most tracks to a detection of their class and size; None if no two agree.

    An unknown camera motion displaces all boxes equally, possibly beyond the reach of `match`.
    """
    box = tracks.state[BOX]
    ratio = box[2:, :, None] / measured[2:, None, :]
    similar = ((ratio < SHIFT_SIZE_RATIO) & (ratio > 1.0 / SHIFT_SIZE_RATIO)).all(axis=0)
    rows, columns = np.nonzero(similar & (tracks.info[CLASS_ID, :, None] == class_ids))
    if not SHIFT_VOTES <= len(rows) <= MAX_SHIFTS:
        return None
    step = measured[:2, columns] - box[:2, rows]
    limit = SHIFT_SIDES * np.sqrt(measured[2, columns] * measured[3, columns])
    agree = (np.abs(step[:, :, None] - step[:, None]) < limit[:, None]).all(axis=0)
    # A track votes once, regardless of the number of detections near it.
    votes = (agree @ (rows[:, None] == np.arange(len(tracks)))).astype(bool).sum(axis=1)
    best = int(np.argmax(votes))
    if votes[best] < SHIFT_VOTES:
        return None
    return np.median(step[:, agree[best]], axis=1, keepdims=True)


def set_common_speed(state: np.ndarray, known: np.ndarray) -> None:
    """Start new tracks with the common speed of the known ones, if it is due to the camera."""
    if not 2 <= len(known) < state.shape[1]:
        return
    speeds = state[USED_SPEED].take(known, 1)
    speed = _median(speeds)
    if _median(np.abs(speeds - speed).max(axis=0)) < 0.5 * np.abs(speed).max():
        is_new = np.ones(state.shape[1], bool)
        is_new[known] = False
        state[SPEED][:, is_new] = state[USED_SPEED][:, is_new] = speed


def _median(values: np.ndarray) -> np.ndarray:
    """np.median along the last axis, with keepdims, in an eighth of its time."""
    values, middle = np.sort(values), values.shape[-1] // 2
    if values.shape[-1] % 2:
        return values[..., middle : middle + 1]
    return (values[..., middle - 1 : middle] + values[..., middle : middle + 1]) / 2
