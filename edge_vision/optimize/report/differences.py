"""Images of the differences between a candidate's predictions and those of the fp32 native model."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_vision.core.detection_overlay import label_of
from edge_vision.core.detections import Detections
from edge_vision.optimize.agreement import match_boxes, read_detections, read_scores

_WIDTH_PX = 460
_GREY, _RED, _ORANGE = (170, 170, 170), (40, 40, 230), (0, 150, 255)


@dataclass(frozen=True, slots=True)
class ImageDifference:
    """Two JPEG images as base64 text, and a caption."""

    reference: str
    candidate: str
    caption: str


def image_differences(
    task: str, files: Sequence[Path], predictions: Path, reference: Path, labels: Sequence[str], most: int = 3
) -> list[ImageDifference]:
    """The images with the largest differences, the worst first; empty if there are none."""
    if task == "classify":
        return _of_classifier(files, read_scores(predictions), read_scores(reference), labels, most)
    return _of_detector(files, read_detections(predictions), read_detections(reference), labels, most)


def _of_detector(
    files: Sequence[Path],
    found: Sequence[Detections],
    reference: Sequence[Detections],
    labels: Sequence[str],
    most: int,
) -> list[ImageDifference]:
    matches = [match_boxes(one, expected) for one, expected in zip(found, reference, strict=True)]
    order = sorted(range(len(files)), key=lambda i: -(len(matches[i].lost) + len(matches[i].gained)))
    shown = []
    for i in order[:most]:
        lost, gained = matches[i].lost, matches[i].gained
        if len(lost) + len(gained) == 0:
            break
        left = _drawn(files[i], reference[i], lost, _RED, labels)
        right = _drawn(files[i], found[i], gained, _ORANGE, labels)
        caption = f"image {i}: {len(lost)} lost (red), {len(gained)} gained (orange)"
        shown.append(ImageDifference(left, right, caption))
    return shown


def _of_classifier(
    files: Sequence[Path], found: np.ndarray, reference: np.ndarray, labels: Sequence[str], most: int
) -> list[ImageDifference]:
    different = np.flatnonzero(found.argmax(axis=1) != reference.argmax(axis=1))
    drop = reference.max(axis=1) - found.max(axis=1)
    shown = []
    for i in different[np.argsort(-np.abs(drop[different]))][:most].tolist():
        text = " against ".join(
            f"{label_of(labels, int(scores[i].argmax()))} {scores[i].max():.2f}"
            for scores in (reference, found)
        )
        image = _jpeg(_small(cv2.imread(str(files[i])))[0])
        shown.append(ImageDifference(image, image, f"image {i}: {text}"))
    return shown


def _drawn(
    file: Path, boxes: Detections, marked: np.ndarray, color: tuple[int, int, int], labels: Sequence[str]
) -> str:
    """A JPEG with all boxes in grey, the marked ones in colour with class and score."""
    image, scale = _small(cv2.imread(str(file)))
    for i in sorted(range(len(boxes)), key=lambda i: i in marked):
        left, top, right, bottom = (int(v) for v in boxes.xyxy_px[i] * scale)
        if i not in marked:
            cv2.rectangle(image, (left, top), (right, bottom), _GREY, 1)
            continue
        cv2.rectangle(image, (left, top), (right, bottom), color, 2)
        text = f"{label_of(labels, int(boxes.class_ids[i]))} {boxes.scores[i]:.2f}"
        for text_color, thickness in (((0, 0, 0), 3), (color, 1)):
            origin, font = (left, max(12, top - 4)), cv2.FONT_HERSHEY_SIMPLEX
            cv2.putText(image, text, origin, font, 0.45, text_color, thickness, cv2.LINE_AA)
    return _jpeg(image)


def _small(image: np.ndarray) -> tuple[np.ndarray, float]:
    scale = _WIDTH_PX / image.shape[1]
    size = (_WIDTH_PX, max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA)), scale


def _jpeg(image: np.ndarray) -> str:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])[1]
    return base64.b64encode(data.tobytes()).decode()
