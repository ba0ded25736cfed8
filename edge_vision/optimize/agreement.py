"""How far two runs over the same pictures agree. Says nothing about the truth: that needs labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import SAME_BOX_IOU, iou_matrix
from edge_vision.optimize.errors import OptimizeError

SURE = 0.1
"""Of the score: how far the best class must lead the second. Below it any rounding may swap the two, and
which of them is named tells little of the picture."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """value: F1 of boxes (same class, IoU at least 0.5) of a detector, share of equal best classes of a
    classifier. score_shift: mean change of the score of what both found. lost, gained: boxes or pictures.
    of: boxes of the reference, or pictures. sure, sure_of: a classifier's value on those pictures alone of
    which the reference is sure, see SURE, and how many these are; None where there are none."""

    value: float
    score_shift: float
    lost: int
    gained: int
    of: int
    sure: float | None = None
    sure_of: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Two runs on one picture. both: (k, 2) indices into found and reference of the same objects."""

    both: np.ndarray
    lost: np.ndarray
    gained: np.ndarray


def read_detections(file: Path) -> list[Detections]:
    """What a worker judged, picture by picture."""
    with np.load(file) as arrays:
        n = len(arrays.files) // 3
        return [Detections(arrays[f"{i}.boxes"], arrays[f"{i}.scores"], arrays[f"{i}.ids"]) for i in range(n)]


def read_scores(file: Path) -> np.ndarray:
    """(n, k) class scores of a classifier, picture by picture."""
    with np.load(file) as arrays:
        return np.stack([arrays[f"{i}.scores"] for i in range(len(arrays.files))])


def agreement(task: str, found: Path, reference: Path) -> Agreement:
    """Compare what two workers judged. Raises OptimizeError where the reference found nothing at all."""
    if task == "detect":
        return of_detections(read_detections(found), read_detections(reference))
    return of_scores(read_scores(found), read_scores(reference))


def of_detections(found: list[Detections], reference: list[Detections]) -> Agreement:
    """F1 over all pictures. Raises OptimizeError where there is nothing to agree on."""
    if not any(map(len, reference)):
        raise OptimizeError(
            f"the fp32 model finds nothing on the {len(reference)} pictures to judge on, so nothing can be "
            "lost; give clips that show what it knows, or a lower score_threshold in the bundle"
        )
    both = lost = gained = 0
    shifts: list[float] = []
    for one, wanted in zip(found, reference, strict=True):
        pairs = paired(one, wanted)
        both, lost, gained = both + len(pairs.both), lost + len(pairs.lost), gained + len(pairs.gained)
        shifts += (one.scores[pairs.both[:, 0]] - wanted.scores[pairs.both[:, 1]]).tolist()
    f1 = 2 * both / max(1, 2 * both + lost + gained)
    return Agreement(f1, float(np.mean(shifts)) if shifts else 0.0, lost, gained, both + lost)


def paired(found: Detections, reference: Detections) -> Pairs:
    """Same class and IoU at least 0.5, each box once, best pair first."""
    iou = iou_matrix(found.xyxy_px, reference.xyxy_px)
    iou[found.class_ids[:, None] != reference.class_ids[None]] = 0.0
    both: list[tuple[int, int]] = []
    while iou.size and iou.max() >= SAME_BOX_IOU:
        row, column = (int(i) for i in np.unravel_index(iou.argmax(), iou.shape))
        both.append((row, column))
        iou[row], iou[:, column] = 0.0, 0.0
    rows, columns = {row for row, _ in both}, {column for _, column in both}
    return Pairs(
        np.array(both, int).reshape(-1, 2),
        np.array([i for i in range(len(reference)) if i not in columns], int),
        np.array([i for i in range(len(found)) if i not in rows], int),
    )


def of_scores(found: np.ndarray, reference: np.ndarray) -> Agreement:
    """Top-1 agreement of (n, k) scores, and the shift of the reference's best class's score."""
    best = reference.argmax(axis=1)
    same = found.argmax(axis=1) == best
    rows = np.arange(len(best))
    shift = float((found[rows, best] - reference[rows, best]).mean())
    different = int((~same).sum())
    second, first = np.sort(reference, axis=1)[:, -2:].T if reference.shape[1] > 1 else (0.0, reference[:, 0])
    sure = first - second >= SURE
    value = float(same[sure].mean()) if sure.any() else None
    return Agreement(float(same.mean()), shift, different, different, len(best), value, int(sure.sum()))
