"""Rules for heads that read lists: queries, anchors, selected objects, or classes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_vision.backends.base import TensorSpec
from edge_vision.core.model_spec import HeadSpec
from edge_vision.detect.heads.ssd import ssd_mobilenet_v2_anchors
from edge_vision.importer.head_evidence import (
    MAX_LISTED_ROWS,
    HeadEvidence,
    HeadGuess,
    format_shape,
    in_unit_interval,
)

# Output names of the post-processing operator, by the converters of TensorFlow 1 and 2.
_TFLITE_NAMES = {
    "TFLite_Detection_PostProcess:1": "class",
    "TFLite_Detection_PostProcess:2": "score",
    "StatefulPartitionedCall:2": "class",
    "StatefulPartitionedCall:1": "score",
}


def end_to_end(evidence: HeadEvidence) -> HeadGuess | None:
    """A short list of box, score and class."""
    one = evidence.single(3)
    if one is None or one.shape[2] != 6 or int(one.shape[1] or 0) > MAX_LISTED_ROWS:
        return None
    boxes = evidence.values[one.name][0, :, :4] if one.name in evidence.values else None
    options = {"box_unit": "relative"} if evidence.has_relative_boxes(boxes) else {}
    # A right edge left of the left edge: these are centres and sizes, as in RT-DETR.
    if boxes is not None and (boxes[:, 2:] < boxes[:, :2]).any():
        why = f"{format_shape(one.shape)}: a short list of centre, size, score, class"
        spec = HeadSpec("end_to_end", {"rows": one.name}, {"box_order": "cxcywh", **options})
        return HeadGuess("rtdetr", spec, None, why)
    why = f"{format_shape(one.shape)}: a short list of left, top, right, bottom, score, class"
    return HeadGuess("ultralytics", HeadSpec("end_to_end", {"rows": one.name}, options), None, why)


def detr_rows(evidence: HeadEvidence) -> HeadGuess | None:
    """A short list of box and class scores."""
    one = evidence.single(3)
    if one is None or one.shape[2] <= 6 or int(one.shape[1] or 0) > MAX_LISTED_ROWS:  # type: ignore[operator]
        return None
    values = evidence.values.get(one.name)
    n_classes = int(one.shape[2] or 0) - 4
    if evidence.strides_of(int(one.shape[1] or 0)) or (
        values is not None and not in_unit_interval(values[0, :, 4:])
    ):
        return None
    why = f"{format_shape(one.shape)}: a short list of 4 + {n_classes} columns, all scores from 0 to 1"
    return HeadGuess("rtdetr", HeadSpec("detr_rows", {"rows": one.name}), n_classes, why)


def ssd(evidence: HeadEvidence) -> HeadGuess | None:
    """Boxes and scores, one row per anchor of SSD MobileNet."""
    pair = _boxes_and_rows(evidence)
    if pair is None or pair[0].shape[1] != len(
        ssd_mobilenet_v2_anchors(evidence.width_px, evidence.height_px)
    ):
        return None
    boxes, scores = pair
    values = evidence.values.get(scores.name)
    activation = "none" if values is not None and in_unit_interval(values) else "sigmoid"
    n_classes = int(scores.shape[2] or 0) - 1
    why = (
        f"{format_shape(boxes.shape)}: a row per anchor of SSD MobileNet; scores {format_shape(scores.shape)}"
    )
    roles = {"boxes": boxes.name, "scores": scores.name}
    return HeadGuess("tf", HeadSpec("ssd", roles, {"score_activation": activation}), n_classes, why)


def detr(evidence: HeadEvidence) -> HeadGuess | None:
    """Boxes and class logits, one row per query."""
    pair = _boxes_and_rows(evidence)
    if pair is None or int(pair[0].shape[1] or 0) > MAX_LISTED_ROWS:
        return None
    boxes, logits = pair
    queries, columns = int(logits.shape[1] or 0), int(logits.shape[2] or 0)
    # DETR has 100 queries and "no object" as 92nd class of COCO; RT-DETR has neither.
    softmax = columns == evidence.n_labels + 1 if evidence.n_labels else (queries, columns) == (100, 92)
    n_classes = columns - softmax
    options = {"score_activation": "softmax" if softmax else "sigmoid"}
    why = f"{queries} queries: {format_shape(boxes.shape)} boxes, {format_shape(logits.shape)} classes" + (
        ", the last one for no object" if softmax else ""
    )
    spec = HeadSpec("detr", {"logits": logits.name, "boxes": boxes.name}, options)
    return HeadGuess("detr" if softmax else "rtdetr", spec, n_classes, why)


def decoded(evidence: HeadEvidence) -> HeadGuess | None:
    """Boxes, classes and scores selected by the graph."""
    boxes = _prefer([one for one in evidence.outputs if len(one.shape) == 3 and one.shape[2] == 4])
    flat = [one for one in evidence.outputs if len(one.shape) == 2 and one.shape[0] == 1]
    classes, scores = _classes_and_scores(flat, evidence)
    if boxes is None or classes is None or scores is None:
        return None
    roles = {"boxes": boxes.name, "scores": scores.name, "classes": classes.name}
    count = next((one for one in evidence.outputs if one.shape == (1,)), None)
    if count is not None:
        roles["count"] = count.name
    shapes = f"boxes {format_shape(boxes.shape)}, classes and scores {format_shape(scores.shape)}"
    why = f"{shapes}, selected by the graph"
    if evidence.format == "tflite":
        return HeadGuess("tf", HeadSpec("tflite_detection", roles), None, why)
    if "detection_" in boxes.name:
        options = {"box_order": "yxyx", "box_unit": "relative", "first_class": 1}
        return HeadGuess("tf", HeadSpec("decoded", roles, options), None, why)
    return HeadGuess("rtdetr", HeadSpec("decoded", roles), None, why)


def classifier(evidence: HeadEvidence) -> HeadGuess | None:
    """One number per class."""
    rows = [one for one in evidence.outputs if len(one.shape) == 2 and one.shape[0] == 1 and one.shape[1]]
    if len(rows) != len(evidence.outputs) or not rows:
        return None
    # Of several outputs (classes and features): the one with as many columns as labels, or named so.
    fits = [one for one in rows if one.shape[1] == evidence.n_labels]
    by_name = [one for one in rows if any(word in one.name.lower() for word in ("logit", "prob", "class"))]
    one = (fits or by_name or rows)[0]
    if len(rows) > 1 and not (fits or by_name):
        return None
    values = evidence.values.get(one.name)
    if values is not None and _is_nms_row(values[0]):
        return None
    activated = (
        values is not None and in_unit_interval(values) and abs(float(values.sum(dtype=float)) - 1) < 1e-2
    )
    kind = "sum 1" if activated else "not yet probabilities"
    why = f"{format_shape(one.shape)}: one number per class, {kind}"
    spec = HeadSpec("classifier", {"logits": one.name}, {"activation": "none" if activated else "softmax"})
    return HeadGuess("classifier", spec, int(one.shape[1] or 0), why)


def _is_nms_row(row: np.ndarray) -> bool:
    """Whether a row is an object of YOLOv7's export with NMS: image 0, corners in pixels, class, score.

    Noise often gives one such row, with the shape of seven classes.
    """
    if len(row) != 7:
        return False
    image, left, top, right, bottom, class_id, score = map(float, row)
    is_box = left < right and top < bottom and max(right, bottom) > 1
    return is_box and image == 0 and class_id >= 0 and class_id.is_integer() and 0 <= score <= 1


def _boxes_and_rows(evidence: HeadEvidence) -> tuple[TensorSpec, TensorSpec] | None:
    """Two outputs, (1, n, 4) and (1, n, k). If both end in 4, their names decide."""
    both = [one for one in evidence.outputs if len(one.shape) == 3 and None not in one.shape]
    if len(both) < 2:
        return None
    boxes = _prefer([one for one in both if one.shape[2] == 4])
    rows = [one for one in both if one is not boxes and boxes and one.shape[:2] == boxes.shape[:2]]
    return (boxes, rows[0]) if boxes and len(rows) == 1 else None


def _prefer(candidates: list[TensorSpec]) -> TensorSpec | None:
    """The one named "box" but not "raw", else the first."""
    named = [one for one in candidates if "box" in one.name.lower() and "raw" not in one.name.lower()]
    return (named or candidates or [None])[0]  # type: ignore[list-item]


def _classes_and_scores(
    flat: list[TensorSpec], evidence: HeadEvidence
) -> tuple[TensorSpec | None, TensorSpec | None]:
    """The classes and the scores among (1, n) outputs: by name, by integer values, by elimination."""

    def first(*tests: Callable[[TensorSpec], bool]) -> TensorSpec | None:
        return next((one for test in tests for one in flat if test(one)), None)

    def named(one: TensorSpec, *words: str) -> bool:
        name = _TFLITE_NAMES.get(one.name, one.name).lower()
        return any(word in name for word in words) and "multiclass" not in name and "anchor" not in name

    def has_integers(one: TensorSpec) -> bool:
        values = evidence.values.get(one.name)
        return values is not None and bool((values == np.rint(values)).all()) and bool(values.any())

    classes = first(
        lambda one: named(one, "class", "label"), lambda one: one.dtype.startswith("int"), has_integers
    )
    flat = [one for one in flat if one is not classes]
    scores = first(lambda one: named(one, "score", "conf", "prob"), lambda _: len(flat) == 1)
    return classes, scores
