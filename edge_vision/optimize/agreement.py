"""Agreement of two runs on the same images. It is relative to a reference model, not to ground truth."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import SAME_BOX_IOU, iou_matrix
from edge_vision.optimize.errors import OptimizeError

CONFIDENT_MARGIN = 0.1
"""Score margin of the best class over the second. Below it, rounding alone may swap the two classes."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """metric: f1 of boxes (same class, IoU at least 0.5) or top1, the share of images with the same best
    class.

    score_shift: mean change of the score of matched objects. lost, gained, total: boxes (total: of the
    reference) or images. confident_value: top1 on the confident_images, on which the reference's best class
    leads by CONFIDENT_MARGIN; None if there are none, or for a detector.
    """

    metric: Literal["f1", "top1"]
    value: float
    score_shift: float
    lost: int
    gained: int
    total: int
    confident_value: float | None = None
    confident_images: int = 0


def coarse(agreement: Agreement, max_loss: float) -> str:
    """That one changed object or image exceeds the bound; "" if the data is fine enough. agreement: of any
    candidate."""
    one = 1.0 / max(1, agreement.total)
    if one <= max_loss:
        return ""
    what, more = ("object", ", or clips with more objects") if agreement.metric == "f1" else ("image", "")
    return (
        f"one changed {what} of {agreement.total} costs up to {one:.3f} of agreement, more than the bound of "
        f"{max_loss:g}: pass more --images{more}"
    )


@dataclass(frozen=True, slots=True, eq=False)
class BoxMatches:
    """Boxes of two runs on one image. matched: (k, 2) indices into found and reference; lost: indices into
    the reference; gained: indices into found."""

    matched: np.ndarray
    lost: np.ndarray
    gained: np.ndarray


def read_detections(file: Path) -> list[Detections]:
    """A detector's predictions of each image, as written by a worker."""
    with np.load(file) as arrays:
        n = len(arrays.files) // 3
        return [Detections(arrays[f"{i}.boxes"], arrays[f"{i}.scores"], arrays[f"{i}.ids"]) for i in range(n)]


def read_scores(file: Path) -> np.ndarray:
    """(n, k) class scores of a classifier for each image, as written by a worker."""
    with np.load(file) as arrays:
        return np.stack([arrays[f"{i}.scores"] for i in range(len(arrays.files))])


def rename_classes(file: Path, class_ids: Sequence[int]) -> None:
    """Give a detector's predictions these ids instead of 0, 1, ..."""
    with np.load(file) as arrays:
        values = {name: arrays[name] for name in arrays.files}
    for name in values:
        if name.endswith(".ids"):
            values[name] = np.asarray(class_ids, np.int32)[values[name]]
    np.savez(file, **values)


def agreement(task: str, predictions: Path, reference: Path, class_ids: Collection[int] = ()) -> Agreement:
    """Agreement of two files of predictions. class_ids: a detector's classes to compare, empty = all.

    Raises OptimizeError if the reference detected nothing."""
    if task == "detect":
        expected = read_detections(reference)
        if class_ids:
            expected = [one.select(np.isin(one.class_ids, list(class_ids))) for one in expected]
        return detector_agreement(read_detections(predictions), expected)
    return classifier_agreement(read_scores(predictions), read_scores(reference))


def detector_agreement(found: list[Detections], reference: list[Detections]) -> Agreement:
    """F1 over all images. Raises OptimizeError if the reference detected nothing."""
    if not any(map(len, reference)):
        raise OptimizeError(
            f"expected objects in the evaluation clips, got no detection of the fp32 model in "
            f"{len(reference)} images; use clips with its classes, or lower score_threshold in the bundle"
        )
    matched = lost = gained = 0
    shifts: list[float] = []
    for one, expected in zip(found, reference, strict=True):
        match = match_boxes(one, expected)
        matched, lost, gained = (
            matched + len(match.matched),
            lost + len(match.lost),
            gained + len(match.gained),
        )
        shifts += (one.scores[match.matched[:, 0]] - expected.scores[match.matched[:, 1]]).tolist()
    f1 = 2 * matched / max(1, 2 * matched + lost + gained)
    shift = float(np.mean(shifts)) if shifts else 0.0
    return Agreement("f1", f1, shift, lost, gained, matched + lost)


def match_boxes(found: Detections, reference: Detections) -> BoxMatches:
    """One-to-one matches of the same class with IoU at least 0.5, greedily by IoU."""
    iou = iou_matrix(found.xyxy_px, reference.xyxy_px)
    iou[found.class_ids[:, None] != reference.class_ids[None]] = 0.0
    matched: list[tuple[int, int]] = []
    while iou.size and iou.max() >= SAME_BOX_IOU:
        row, column = (int(i) for i in np.unravel_index(iou.argmax(), iou.shape))
        matched.append((row, column))
        iou[row], iou[:, column] = 0.0, 0.0
    rows, columns = {row for row, _ in matched}, {column for _, column in matched}
    return BoxMatches(
        np.array(matched, int).reshape(-1, 2),
        np.array([i for i in range(len(reference)) if i not in columns], int),
        np.array([i for i in range(len(found)) if i not in rows], int),
    )


def classifier_agreement(found: np.ndarray, reference: np.ndarray) -> Agreement:
    """Top-1 agreement of (n, k) scores, and the mean score shift of the reference's best class."""
    best = reference.argmax(axis=1)
    same = found.argmax(axis=1) == best
    rows = np.arange(len(best))
    shift = float((found[rows, best] - reference[rows, best]).mean())
    different = int((~same).sum())
    second, first = np.sort(reference, axis=1)[:, -2:].T if reference.shape[1] > 1 else (0.0, reference[:, 0])
    confident = first - second >= CONFIDENT_MARGIN
    value = float(same[confident].mean()) if confident.any() else None
    return Agreement(
        "top1", float(same.mean()), shift, different, different, len(best), value, int(confident.sum())
    )
