"""Reviewed pictures in a training: their boxes, which ones the teacher may teach, the accuracy on labels.

Without a correction (see `label_correction`), a picture on which the teacher itself is wrong has nothing to
imitate, and is left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.backends.base import TensorSpec
from edge_vision.bundles.store import Bundle
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.geometry.boxes import true_positives
from edge_vision.core.preprocess import Preprocessor
from edge_vision.dataset.errors import DatasetError
from edge_vision.dataset.folder import MARKER, DatasetFolder
from edge_vision.dataset.picture import ACCEPTED, REJECTED, LabelledBox
from edge_vision.detect.detector import to_source_pixels
from edge_vision.detect.heads import DetectionHead, make_head
from edge_vision.offline.progress import Count, no_count
from edge_vision.optimize.data import ground_truth
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization import graph_session

LEAST_F1 = 0.5
"""Of the teacher against the labels of a picture that it may teach."""
Bbox = tuple[float, float, float, float]
Labels = tuple[LabelledBox, ...] | None
"""Of a picture, in its pixels; None without a review."""


def is_collected(path: Path) -> bool:
    """Whether a folder is one of collected pictures."""
    return (path / MARKER).is_file()


def collected_pictures(path: Path) -> list[tuple[Path, Labels]]:
    """The files of such a folder and their labels, the oldest first, without rejected ones.

    Raises OptimizeError if one is damaged."""
    damaged: list[str] = []
    try:
        folder = DatasetFolder(path)
        found = [one for one in folder.pictures(damaged) if one.state != REJECTED]
    except DatasetError as error:
        raise OptimizeError(str(error)) from None
    if damaged:
        raise OptimizeError(damaged[0])
    return [(folder.image_path(one.name), one.labels if one.state == ACCEPTED else None) for one in found]


def collected_digest(path: Path) -> str:
    """Differs after each review and each new picture. Raises OptimizeError."""
    state = [
        (file.name, labels and [asdict(one) for one in labels]) for file, labels in collected_pictures(path)
    ]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def digests_of(clips: Sequence[str]) -> dict[str, list[str]]:
    """The digests of the folders among clips, by a name for all of them; empty without one."""
    found = [collected_digest(Path(one)) for one in clips if is_collected(Path(one))]
    return {"reviews": found} if found else {}


def scaled(labels: Labels, factor: float) -> Labels:
    """The labels of a reduced picture."""
    if labels is None or factor == 1:
        return labels
    return tuple(replace(one, bbox=_scaled_bbox(one.bbox, factor)) for one in labels)


def _scaled_bbox(bbox: Bbox, factor: float) -> Bbox:
    left, top, width, height = bbox
    return factor * left, factor * top, factor * width, factor * height


class LabelledImages:
    """Images with labels. A detector is run on each of them, as in the nodes. bundle: of its head."""

    def __init__(
        self,
        bundle: Bundle,
        images: Sequence[np.ndarray],
        labels: Sequence[Labels],
        show: Count = no_count,
    ) -> None:
        """images: (h, w, 3) uint8 BGR; those without labels are ignored. Labels of other classes than the
        bundle's are ignored, too. show: receives the number of images that are done, of each graph. Raises
        OptimizeError if a package is missing."""
        ground_truth.check_installed()
        self._bundle, self._show = bundle, show
        pairs = [(image, one) for image, one in zip(images, labels, strict=True) if one is not None]
        self._images = [image for image, _ in pairs]
        self.expected = [label_boxes(one, bundle.labels) for _, one in pairs]

    def detect(self, model: Any, score_threshold: float) -> list[Detections]:
        """What a graph finds on each image. Raises OptimizeError."""
        manifest = self._bundle.manifest
        session = graph_session.session(model)
        specs = [TensorSpec(one.name, tuple(one.shape), "float32") for one in session.get_outputs()]
        head = make_head(manifest.head, manifest.input, specs, len(self._bundle.labels))
        if not isinstance(head, DetectionHead):
            raise OptimizeError(
                f"{self._bundle.name}: expected a detector for labelled pictures, got another"
            )
        preprocessor, names = Preprocessor(manifest.input), [one.name for one in specs]
        thresholds = replace(manifest.thresholds, score_threshold=score_threshold)
        found = []
        for image in self._images:
            tensor, transform = preprocessor.prepare(Frame(image, 0, ""))
            outputs = dict(zip(names, session.run(names, {manifest.input.name: tensor}), strict=True))
            found.append(to_source_pixels(head.decode(outputs, thresholds), transform))
            self._show(len(found), len(self._images))
        return found

    def map50(self, model: Any) -> float:
        """COCO's AP at IoU 0.5 of a graph. Raises OptimizeError."""
        document = _document(self.expected, self._bundle.labels)
        return ground_truth.mean_ap(self.detect(model, ground_truth.SCORE_THRESHOLD), document).map50

    def wrong(self, model: Any) -> list[int]:
        """The images, counted from 0, on which a graph's F1 is below LEAST_F1."""
        threshold = self._bundle.manifest.thresholds.score_threshold
        pairs = zip(self.detect(model, threshold), self.expected, strict=True)
        return [i for i, (found, expected) in enumerate(pairs) if _f1(found, expected) < LEAST_F1]


def teachable(
    bundle: Bundle,
    teacher: Any,
    images: Sequence[np.ndarray],
    labels: Sequence[Labels],
    show: Count = no_count,
) -> list[int]:
    """The numbers of the images that a teacher, a graph of the bundle, may teach."""
    with_labels = [i for i, one in enumerate(labels) if one is not None]
    if not with_labels:
        return list(range(len(images)))
    wrong = {with_labels[i] for i in LabelledImages(bundle, images, labels, show).wrong(teacher)}
    return [i for i in range(len(images)) if i not in wrong]


def _f1(found: Detections, expected: Detections) -> float:
    total = len(found) + len(expected)
    return 2 * true_positives(found, expected) / total if total else 1.0


def label_boxes(labels: Sequence[LabelledBox], names: Sequence[str]) -> Detections:
    """Labels of these classes, in any case of letters, with a score of 1: all of each box is visible."""
    ids = {name.lower(): i for i, name in enumerate(names)}
    known = [one for one in labels if one.label.lower() in ids]
    xywh = np.array([one.bbox for one in known], np.float32).reshape(-1, 4)
    xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    class_ids = np.array([ids[one.label.lower()] for one in known], np.int32)
    return Detections(xyxy, np.ones(len(known), np.float32), class_ids)


def visible_parts(boxes: Detections, region: np.ndarray) -> Detections:
    """The parts of boxes within a region, (4,) xyxy, where there is one; scores times the visible share."""
    left, top, right, bottom = region
    inside = np.clip(boxes.xyxy_px, [left, top] * 2, [right, bottom] * 2).astype(np.float32)
    sides, whole = inside[:, 2:] - inside[:, :2], boxes.xyxy_px[:, 2:] - boxes.xyxy_px[:, :2]
    shares = (sides / np.maximum(whole, 1e-9)).prod(axis=1)
    return Detections(inside, boxes.scores * shares, boxes.class_ids).select(sides.min(axis=1) > 0)


def _document(expected: Sequence[Detections], labels: Sequence[str]) -> dict[str, Any]:
    """As `ground_truth.read_labels`."""
    annotations: list[dict[str, Any]] = []
    for number, one in enumerate(expected):
        for box, class_id in zip(one.xyxy_px.tolist(), one.class_ids.tolist(), strict=True):
            bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            one_of = {"image_id": number, "category_id": class_id, "bbox": bbox, "iscrowd": 0}
            annotations.append({**one_of, "id": len(annotations) + 1, "area": bbox[2] * bbox[3]})
    return {
        "images": [{"id": number} for number in range(len(expected))],
        "categories": [{"id": i, "name": name} for i, name in enumerate(labels)],
        "annotations": annotations,
    }
