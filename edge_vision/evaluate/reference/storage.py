"""References on disk: one compressed file per condition, complete or absent, that a later run can extend."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from edge_vision.core.detections import Detections

ObjectBoxes = dict[int, np.ndarray]
"""object_id -> visible box (4,) float32, xyxy_px, of each object on a frame."""


@dataclass(slots=True, eq=False)
class StoredReference:
    """The detector's results so far, one entry per frame. complete: the source has no further frame."""

    stamps_ns: list[int] = field(default_factory=list)
    detections: list[Detections] = field(default_factory=list)
    low_score: list[Detections] = field(default_factory=list)
    ground_truth: list[ObjectBoxes] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    size_px: tuple[int, int] = (0, 0)
    complete: bool = False

    def __len__(self) -> int:
        return len(self.detections)

    def write(self, path: Path) -> None:
        """Replace the file at path."""
        ids = [np.array(list(boxes), np.int32) for boxes in self.ground_truth]
        arrays = dict(
            stamps_ns=np.array(self.stamps_ns, np.int64),
            cpu_s=np.array(self.cpu_s),
            size_px=np.array(self.size_px),
            complete=np.array(self.complete),
            **_packed("found", self.detections),
            **_packed("low_score", self.low_score),
            truth_counts=np.array([len(boxes) for boxes in self.ground_truth], np.int64),
            truth_ids=_concatenated(ids, (0,)),
            truth_px=_concatenated(
                [box[None] for boxes in self.ground_truth for box in boxes.values()], (0, 4)
            ),
        )
        replace_file(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: Path) -> StoredReference:
        """The stored reference, empty if the file is missing or damaged."""
        try:
            with np.load(path) as file:
                data = {name: file[name] for name in file.files}
            return cls._unpacked(data)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return cls()

    @classmethod
    def _unpacked(cls, data: dict[str, np.ndarray]) -> StoredReference:
        cuts = np.cumsum(data["truth_counts"])[:-1]
        pairs = zip(np.split(data["truth_ids"], cuts), np.split(data["truth_px"], cuts), strict=True)
        return cls(
            stamps_ns=data["stamps_ns"].tolist(),
            detections=_unpacked("found", data),
            low_score=_unpacked("low_score", data),
            ground_truth=[dict(zip(ids.tolist(), boxes, strict=True)) for ids, boxes in pairs],
            cpu_s=data["cpu_s"].tolist(),
            size_px=(int(data["size_px"][0]), int(data["size_px"][1])),
            complete=bool(data["complete"]),
        )


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write to a temporary file in the same folder, then rename it: the file is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            write(file)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _packed(name: str, per_frame: list[Detections]) -> dict[str, np.ndarray]:
    return {
        f"{name}_counts": np.array([len(one) for one in per_frame], np.int64),
        f"{name}_xyxy_px": _concatenated([one.xyxy_px for one in per_frame], (0, 4)),
        f"{name}_scores": _concatenated([one.scores for one in per_frame], (0,)),
        f"{name}_class_ids": _concatenated([one.class_ids for one in per_frame], (0,)),
    }


def _unpacked(name: str, data: dict[str, np.ndarray]) -> list[Detections]:
    cuts = np.cumsum(data[f"{name}_counts"])[:-1]
    parts = [np.split(data[f"{name}_{part}"], cuts) for part in ("xyxy_px", "scores", "class_ids")]
    return [Detections(*part) for part in zip(*parts, strict=True)]


def _concatenated(parts: list[np.ndarray], empty_shape: tuple[int, ...]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(empty_shape, np.float32)
