"""Average precision, recall and precision of detections against labels, by class and by size.

AP is COCO's, by pycocotools: the mean over IoU 0.5 to 0.95. Recall and precision are those of the boxes that
reach a score threshold, at IoU 0.5, pooled over images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import SAME_BOX_IOU
from edge_vision.evaluate.accuracy.labels import LabelSet
from edge_vision.optimize.data.ground_truth import coco_evaluation

SIZES = ("small", "medium", "large")
"""COCO's: areas below 32 x 32 px, below 96 x 96 px, and above."""
Scores = dict[str, Any]


def class_numbers(bundle_labels: Sequence[str], labels: LabelSet) -> dict[int, int]:
    """For each class of a bundle that is labelled, its number in the labels. Classes match by name."""
    numbers = {name: number for number, name in enumerate(labels.classes)}
    return {i: numbers[name.lower()] for i, name in enumerate(bundle_labels) if name.lower() in numbers}


def in_classes_of_labels(found: Detections, numbers: Mapping[int, int]) -> Detections:
    """The detections of labelled classes, with the class ids of the labels."""
    known = found.select(np.isin(found.class_ids, list(numbers)))
    ids = np.array([numbers[int(i)] for i in known.class_ids], np.int32)
    return Detections(known.xyxy_px, known.scores, ids)


def scores_of(
    found: Sequence[Detections], labels: LabelSet, classes: Iterable[int], score_threshold: float
) -> Scores:
    """The figures of the detections on each image, in the classes of the labels.

    classes: to evaluate; objects of others do not count. ap, ap50 and ar (COCO's average recall) are over all
    scores; recall and precision over the boxes that reach the threshold. A figure without objects is None.
    """
    known = set(classes)
    document = _coco_labels(labels, known)
    evaluated = sorted({one["category_id"] for one in document["annotations"] if not one["iscrowd"]})
    given = [one.select(np.isin(one.class_ids, evaluated)) for one in found]
    if not evaluated or not any(map(len, given)):
        return _nothing_found(labels, evaluated)
    evaluation = coco_evaluation(given, document)
    classes_of = list(evaluation.params.catIds)
    tables = _Tables(evaluation, score_threshold)
    every = [classes_of.index(i) for i in evaluated]
    return {
        **tables.figures(every, 0),
        "classes": {labels.classes[i]: tables.figures([classes_of.index(i)], 0) for i in evaluated},
        "sizes": {name: tables.figures(every, area) for area, name in enumerate(SIZES, 1)},
    }


def _nothing_found(labels: LabelSet, evaluated: Sequence[int]) -> Scores:
    count = {
        i: sum(int(((one.class_ids == i) & ~one.ignored).sum()) for one in labels.images) for i in evaluated
    }
    zero = {"ap": 0.0, "ap50": 0.0, "ar": 0.0, "recall": 0.0, "precision": None}
    classes = {labels.classes[i]: {"boxes": n, **zero} for i, n in count.items()}
    return {"boxes": sum(count.values()), **zero, "classes": classes, "sizes": {}}


class _Tables:
    """Figures of an evaluated COCOeval."""

    def __init__(self, evaluation: Any, score_threshold: float) -> None:
        self._precision, self._recall = evaluation.eval["precision"], evaluation.eval["recall"]
        areas, images = len(evaluation.params.areaRng), len(evaluation.params.imgIds)
        self._iou = int(np.argmin(np.abs(evaluation.params.iouThrs - SAME_BOX_IOU)))
        self._images = [
            evaluation.evalImgs[i : i + images] for i in range(0, len(evaluation.evalImgs), images)
        ]
        self._areas, self._threshold = areas, np.float32(score_threshold)

    def figures(self, classes: Sequence[int], area: int) -> Scores:
        """Of these classes, as positions, for objects of a range of areas."""
        counts = np.sum([self._counts(i, area) for i in classes], axis=0)
        boxes, hits, false = (int(value) for value in counts)
        precision = self._precision[:, :, classes, area, -1]
        return {
            "boxes": boxes,
            "ap": _mean(precision),
            "ap50": _mean(precision[self._iou]),
            "ar": _mean(self._recall[:, classes, area, -1]),
            "recall": round(hits / boxes, 4) if boxes else None,
            "precision": round(hits / (hits + false), 4) if hits + false else None,
        }

    def _counts(self, position: int, area: int) -> tuple[int, int, int]:
        """Objects, found objects and false boxes above the threshold. A matched box keeps its object when
        boxes of lower scores are left out, as COCO matches by descending score."""
        boxes = hits = false = 0
        for one in filter(None, self._images[position * self._areas + area]):
            counts = ~one["dtIgnore"][self._iou].astype(bool)
            counts &= np.array(one["dtScores"], np.float32) >= self._threshold
            matched = one["dtMatches"][self._iou] > 0
            boxes += int((~np.array(one["gtIgnore"], bool)).sum())
            hits += int((counts & matched).sum())
            false += int((counts & ~matched).sum())
        return boxes, hits, false


def _mean(values: np.ndarray) -> float | None:
    """The mean of the defined values: pycocotools marks the others with -1."""
    defined = values[values > -1]
    return round(float(defined.mean()), 4) if defined.size else None


def _coco_labels(labels: LabelSet, classes: set[int]) -> dict[str, Any]:
    """COCO's structure, with the positions of images and classes as ids."""
    annotations = [
        {
            "image_id": position,
            "category_id": int(class_id),
            "bbox": [float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
            "area": float(area),
            "iscrowd": int(ignored),
        }
        for position, image in enumerate(labels.images)
        for box, class_id, area, ignored in zip(
            image.xyxy_px, image.class_ids, image.areas, image.ignored, strict=True
        )
        if int(class_id) in classes
    ]
    return {
        "images": [{"id": position} for position in range(len(labels.images))],
        "categories": [{"id": i, "name": name} for i, name in enumerate(labels.classes)],
        "annotations": [{**one, "id": number} for number, one in enumerate(annotations, 1)],
    }
