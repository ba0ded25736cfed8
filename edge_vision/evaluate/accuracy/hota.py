"""HOTA: how well published tracks find objects and keep their identity.

Source of the method: J. Luiten et al. (2021), "HOTA: A Higher Order Metric for Evaluating Multi-Object
Tracking", IJCV 129. Frames without labels do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import SAME_BOX_IOU, iou_matrix
from edge_vision.evaluate.accuracy.labels import LabelledImage

IOU_THRESHOLDS = np.arange(0.05, 0.96, 0.05)
_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Hota:
    """Means over IoU 0.05 to 0.95. det_a: of the boxes alone; ass_a: of the identities of those found.

    hota50: HOTA at IoU 0.5 alone.
    """

    hota: float
    det_a: float
    ass_a: float
    hota50: float


@dataclass(frozen=True, slots=True, eq=False)
class TrackedFrame:
    """A labelled frame. objects, tracks: positions among the objects and the tracks of all frames.

    iou: (len(objects), len(tracks)), 0 between classes.
    """

    objects: np.ndarray
    tracks: np.ndarray
    iou: np.ndarray


def tracked_frames(
    sequences: Sequence[Sequence[tuple[LabelledImage, Detections, np.ndarray]]],
) -> list[TrackedFrame]:
    """The frames of all sequences. Each: the labels, the published boxes in their classes, their track ids.

    Objects without an id, and boxes that match no object and are within an ignored region, do not count.
    """
    objects: dict[tuple[int, int], int] = {}
    tracks: dict[tuple[int, int], int] = {}
    frames = []
    for number, sequence in enumerate(sequences):
        for image, published, ids in sequence:
            real = (image.track_ids > 0) & ~image.ignored
            iou = iou_matrix(image.xyxy_px[real], published.xyxy_px)
            iou[image.class_ids[real][:, None] != published.class_ids[None]] = 0.0
            kept = _counts(image, published, iou)
            frames.append(
                TrackedFrame(
                    _positions(objects, number, image.track_ids[real]),
                    _positions(tracks, number, ids[kept]),
                    iou[:, kept],
                )
            )
    return frames


def _positions(known: dict[tuple[int, int], int], sequence: int, ids: np.ndarray) -> np.ndarray:
    return np.array([known.setdefault((sequence, int(i)), len(known)) for i in ids], np.intp)


def _counts(image: LabelledImage, published: Detections, iou: np.ndarray) -> np.ndarray:
    """Which published boxes count: those that match an object, or are mostly outside ignored regions."""
    matched = (iou >= SAME_BOX_IOU).any(axis=0)
    inside = np.zeros(len(published), bool)
    # Objects without an id are treated as ignored.
    for at in np.flatnonzero(image.ignored | (image.track_ids == 0)):
        box = image.xyxy_px[at]
        sides = np.minimum(published.xyxy_px[:, 2:], box[2:]) - np.maximum(published.xyxy_px[:, :2], box[:2])
        area = np.prod(published.xyxy_px[:, 2:] - published.xyxy_px[:, :2], axis=1)
        share = np.prod(np.maximum(sides, 0.0), axis=1) / np.maximum(area, _TINY)
        inside |= (share >= SAME_BOX_IOU) & (published.class_ids == image.class_ids[at])
    return np.asarray(matched | ~inside)


def hota(frames: Sequence[TrackedFrame]) -> Hota:
    """The figures over all frames; 0 if there are neither objects nor tracks."""
    n_objects, n_tracks = (
        1 + max((int(ids.max()) for one in frames if len(ids := getattr(one, name))), default=-1)
        for name in ("objects", "tracks")
    )
    object_frames = _appearances([one.objects for one in frames], n_objects)[:, None]
    track_frames = _appearances([one.tracks for one in frames], n_tracks)[None, :]
    alignment = _alignment(frames, (n_objects, n_tracks))
    alignment /= np.maximum(object_frames + track_frames - alignment, _TINY)
    hits = np.zeros((len(IOU_THRESHOLDS), n_objects, n_tracks))
    for one in frames:
        rows, columns = assign(alignment[np.ix_(one.objects, one.tracks)] * one.iou)
        reached = one.iou[rows, columns] >= IOU_THRESHOLDS[:, None] - _TINY
        for level, matched in enumerate(reached):
            hits[level, one.objects[rows[matched]], one.tracks[columns[matched]]] += 1
    found = hits.sum(axis=(1, 2))
    det_a = found / np.maximum(object_frames.sum() + track_frames.sum() - found, 1)
    association = hits**2 / np.maximum(object_frames + track_frames - hits, 1)
    ass_a = association.sum(axis=(1, 2)) / np.maximum(found, 1)
    each = np.sqrt(det_a * ass_a)
    at_half = int(np.argmin(np.abs(IOU_THRESHOLDS - SAME_BOX_IOU)))
    values = (each.mean(), det_a.mean(), ass_a.mean(), each[at_half])
    return Hota(*(round(float(value), 4) for value in values))


def _appearances(ids: Sequence[np.ndarray], n: int) -> np.ndarray:
    return np.bincount(np.concatenate([np.zeros(0, np.intp), *ids]), minlength=n).astype(float)


def _alignment(frames: Sequence[TrackedFrame], shape: tuple[int, int]) -> np.ndarray:
    """How much each object and track overlap over all frames, relative to what else they overlap."""
    total = np.zeros(shape)
    for one in frames:
        others = one.iou.sum(axis=0, keepdims=True) + one.iou.sum(axis=1, keepdims=True) - one.iou
        total[np.ix_(one.objects, one.tracks)] += np.where(
            one.iou > 0, one.iou / np.maximum(others, _TINY), 0
        )
    return total


def assign(gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the one-to-one assignment with the largest sum of gains, (n, m) at least 0.

    Source of the method: the Hungarian algorithm with potentials, R. Jonker and A. Volgenant (1987).
    """
    if gain.shape[0] > gain.shape[1]:
        columns, rows = assign(gain.T)
        return rows, columns
    n, m = gain.shape
    # Row and column 0 are placeholders. row_of[j]: the row assigned to column j.
    row_price, column_price = np.zeros(n + 1), np.zeros(m + 1)
    row_of, previous = np.zeros(m + 1, int), np.zeros(m + 1, int)
    for row in range(1, n + 1):
        row_of[0], column = row, 0
        shortest, done = np.full(m + 1, np.inf), np.zeros(m + 1, bool)
        while row_of[column]:
            done[column], at = True, row_of[column]
            slack = np.r_[np.inf, -gain[at - 1]] - row_price[at] - column_price
            nearer = ~done & (slack < shortest)
            shortest[nearer], previous[nearer] = slack[nearer], column
            column = int(np.argmin(np.where(done, np.inf, shortest)))
            step = shortest[column]
            row_price[row_of[done]] += step
            column_price[done] -= step
            shortest[~done] -= step
        while column:
            row_of[column], column = row_of[previous[column]], previous[column]
    columns = np.flatnonzero(row_of[1:])
    return row_of[1:][columns] - 1, columns
