"""Reviewed pictures as a plain COCO data set, split by time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_vision.backends.runtimes.engine_cache import write_file
from edge_vision.dataset.coco import IMAGE_SUFFIX, coco_document
from edge_vision.dataset.errors import DatasetError
from edge_vision.dataset.folder import DatasetFolder
from edge_vision.dataset.picture import ACCEPTED, Picture

TRAIN_SHARE, JUDGE_SHARE = 0.65, 0.3
"""Of a time range: its first and its last part. What is between separates them."""
TRAIN, JUDGE = SUBSETS = ("train", "val")


@dataclass(frozen=True, slots=True)
class ExportReport:
    """Numbers of pictures in each subset, and of accepted ones between them."""

    train: int
    val: int
    unused: int


def split_by_time(pictures: Sequence[Picture]) -> dict[str, list[Picture]]:
    """train: the oldest TRAIN_SHARE of the pictures, at least one; val: the newest JUDGE_SHARE."""
    ordered = sorted(pictures, key=lambda one: one.name)
    count = len(ordered)
    first, last = max(1, int(TRAIN_SHARE * count)), int(JUDGE_SHARE * count)
    return {TRAIN: ordered[:first], JUDGE: ordered[count - last :]}


def write_export(folder: DatasetFolder, out: Path) -> ExportReport:
    """Write images/SUBSET and annotations/instances_SUBSET.json of the accepted pictures to a folder.

    Raises DatasetError if there are none, OSError.
    """
    accepted = [one for one in folder.pictures() if one.state == ACCEPTED]
    if not accepted:
        raise DatasetError(
            f"{folder.folder}: expected accepted pictures, got none; review some with `edge-vision dataset "
            f"review {folder.folder}`"
        )
    parts = split_by_time(accepted)
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    for subset, pictures in parts.items():
        images = out / "images" / subset
        images.mkdir(parents=True, exist_ok=True)
        for one in pictures:
            (images / f"{one.name}{IMAGE_SUFFIX}").write_bytes(folder.image(one.name))
        document = coco_document(pictures, folder.labels(), f"Reviewed pictures of edge_vision, {subset}")
        write_file(out / "annotations" / f"instances_{subset}.json", document)
    counts = {subset: len(pictures) for subset, pictures in parts.items()}
    return ExportReport(**counts, unused=len(accepted) - sum(counts.values()))
