"""Pictures of what a candidate lost and gained against the fp32 native model."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_vision.core.detection_overlay import label_of
from edge_vision.core.detections import Detections
from edge_vision.optimize.agreement import paired, read_detections, read_scores

_WIDTH_PX = 460
_GREY, _RED, _ORANGE = (170, 170, 170), (40, 40, 230), (0, 150, 255)


@dataclass(frozen=True, slots=True)
class PictureComparison:
    """Two JPEG pictures as base64 text, and what differs."""

    reference: str
    found: str
    text: str


def compare(
    task: str, files: Sequence[Path], found: Path, reference: Path, labels: Sequence[str], most: int = 3
) -> list[PictureComparison]:
    """The pictures that differ most, the worst first; none where nothing differs."""
    if task == "classify":
        return _classified(files, read_scores(found), read_scores(reference), labels, most)
    return _detected(files, read_detections(found), read_detections(reference), labels, most)


def _detected(
    files: Sequence[Path],
    found: Sequence[Detections],
    reference: Sequence[Detections],
    labels: Sequence[str],
    most: int,
) -> list[PictureComparison]:
    pairs = [paired(one, wanted) for one, wanted in zip(found, reference, strict=True)]
    order = sorted(range(len(files)), key=lambda i: -(len(pairs[i].lost) + len(pairs[i].gained)))
    shown = []
    for i in order[:most]:
        lost, gained = pairs[i].lost, pairs[i].gained
        if len(lost) + len(gained) == 0:
            break
        left = _drawn(files[i], reference[i], lost, _RED, labels)
        right = _drawn(files[i], found[i], gained, _ORANGE, labels)
        shown.append(
            PictureComparison(
                left, right, f"picture {i}: {len(lost)} lost (red), {len(gained)} gained (orange)"
            )
        )
    return shown


def _classified(
    files: Sequence[Path], found: np.ndarray, reference: np.ndarray, labels: Sequence[str], most: int
) -> list[PictureComparison]:
    different = np.flatnonzero(found.argmax(axis=1) != reference.argmax(axis=1))
    drop = reference.max(axis=1) - found.max(axis=1)
    shown = []
    for i in different[np.argsort(-np.abs(drop[different]))][:most].tolist():
        text = " against ".join(
            f"{label_of(labels, int(scores[i].argmax()))} {scores[i].max():.2f}"
            for scores in (reference, found)
        )
        picture = _jpeg(_small(cv2.imread(str(files[i])))[0])
        shown.append(PictureComparison(picture, picture, f"picture {i}: {text}"))
    return shown


def _drawn(
    file: Path, boxes: Detections, marked: np.ndarray, color: tuple[int, int, int], labels: Sequence[str]
) -> str:
    """All boxes in grey, those of interest in their colour with class and score."""
    picture, scale = _small(cv2.imread(str(file)))
    for i in sorted(range(len(boxes)), key=lambda i: i in marked):
        left, top, right, bottom = (int(v) for v in boxes.xyxy_px[i] * scale)
        special = i in marked
        cv2.rectangle(picture, (left, top), (right, bottom), color if special else _GREY, 2 if special else 1)
        if special:
            text = f"{label_of(labels, int(boxes.class_ids[i]))} {boxes.scores[i]:.2f}"
            place = (left, max(12, top - 4))
            cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 3, cv2.LINE_AA)
            cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, 1, cv2.LINE_AA)
    return _jpeg(picture)


def _small(picture: np.ndarray) -> tuple[np.ndarray, float]:
    scale = _WIDTH_PX / picture.shape[1]
    size = (_WIDTH_PX, max(1, round(picture.shape[0] * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA)), scale


def _jpeg(picture: np.ndarray) -> str:
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 82])[1]
    return base64.b64encode(data.tobytes()).decode()
