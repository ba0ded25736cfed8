"""Which known object is which detection."""

from __future__ import annotations

import math

import numpy as np

from edge_vision.core.track_filter import MEASURED_SD, area, corners

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


def matched(tracks: np.ndarray, measured: np.ndarray, class_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which track is which detection: two (k,) index arrays. Most alike first, each once, within a class."""
    if len(tracks) == 0 or len(measured) == 0:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    rows, columns = np.nonzero(_within_reach(tracks, measured) & (tracks["class_id"][:, None] == class_ids))
    box, other = tracks["box"][rows], measured[columns]
    far = _distance(box, other, tracks["var"][rows, 0, :2])
    iou = _iou(box, other)
    ratio = box[:, 2:] / other[:, 2:]
    alike_size = (np.maximum(ratio, 1.0 / ratio) < MAX_SIZE_RATIO).all(axis=1)
    # Overlap alone says nothing of a small fast object after a second, distance alone nothing within a crowd.
    alike = np.where(alike_size & ((far < GATE) | (iou > SURE_IOU)), iou - far / GATE, -np.inf)
    order = np.argsort(-alike, kind="stable")[: np.count_nonzero(alike > -np.inf)]
    return _each_once(rows[order], columns[order])


def _within_reach(tracks: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(n tracks, n measured) bool: a rough test that spares most pairs the exact one, and loses none."""
    side = np.sqrt(area(measured))[:, None]
    reach = tracks["box"][:, 2:] / 2 + np.sqrt(GATE * tracks["var"][:, 0, :2])
    other_reach = measured[:, 2:] / 2 + (math.sqrt(GATE) * MEASURED_SD) * side
    near = np.ones((len(tracks), len(measured)), bool)
    for i in (0, 1):
        step = np.abs(tracks["box"][:, i, None] - measured[:, i])
        near &= step <= reach[:, i, None] + other_reach[:, i]
    return near


def _distance(box: np.ndarray, measured: np.ndarray, var: np.ndarray) -> np.ndarray:
    """(k,) squared distance of the centres in standard deviations (Mahalanobis)."""
    step = box[:, :2] - measured[:, :2]
    return (step * step / (var + MEASURED_SD**2 * area(measured)[:, None])).sum(axis=1)


def _iou(box: np.ndarray, other: np.ndarray) -> np.ndarray:
    (low, high), (other_low, other_high) = corners(box), corners(other)
    sides = np.maximum(np.minimum(high, other_high) - np.maximum(low, other_low), 0.0)
    both = sides[:, 0] * sides[:, 1]
    return both / (area(box) + area(other) - both)


def _each_once(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take pairs in their order, leaving out those of which one half was taken."""
    taken: dict[int, int] = {}
    taken_columns: set[int] = set()
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if row not in taken and column not in taken_columns:
            taken[row] = column
            taken_columns.add(column)
    return np.array([*taken], np.intp), np.array([*taken.values()], np.intp)


def common_shift(tracks: np.ndarray, measured: np.ndarray, class_ids: np.ndarray) -> np.ndarray | None:
    """(2,) px by which most tracks are beside a detection of their class and size; None where no two agree.

    That is what a camera's motion does that nobody has told: all boxes are wrong alike, and none is within
    reach.
    """
    ratio = tracks["box"][:, None, 2:] / measured[None, :, 2:]
    alike = (np.maximum(ratio, 1.0 / ratio) < SHIFT_SIZE_RATIO).all(axis=2)
    rows, columns = np.nonzero(alike & (tracks["class_id"][:, None] == class_ids))
    if not SHIFT_VOTES <= len(rows) <= MAX_SHIFTS:
        return None
    step = measured[columns, :2] - tracks["box"][rows, :2]
    limit = SHIFT_SIDES * np.sqrt(area(measured[columns]))
    agree = (np.abs(step[:, None] - step) < limit[:, None, None]).all(axis=2)
    # A track votes once, however many detections are around it.
    votes = (agree @ (rows[:, None] == np.arange(len(tracks)))).astype(bool).sum(axis=1)
    best = int(np.argmax(votes))
    return np.median(step[agree[best]], axis=0) if votes[best] >= SHIFT_VOTES else None
