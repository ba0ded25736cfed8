"""From what the outputs of a graph look like to the head that reads them.

Each family has one function that says yes with its reason, or None; the first yes counts. Shapes decide;
where two families share a shape, the numbers of one run on noise do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from edge_vision.backends.base import TensorSpec
from edge_vision.core.model_spec import HeadSpec
from edge_vision.detect.heads.ssd import ssd_mobilenet_v2_anchors

_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))
_NANODET_STRIDES = (8, 16, 32, 64)
_NANODET_BINS = 32  # Four sides of eight, its reg_max being 7 in all published configurations.
_MOST_LOGARITHM = 10.0  # Of a size in cells: e ** 10 cells are more than any picture has.
_MOST_ROWS = 1000  # No graph that has chosen its objects gives more; no grid of a useful picture has fewer.


@dataclass(frozen=True, slots=True)
class HeadEvidence:
    """What a head is guessed from. width_px, height_px: of the input. values: of one run, {} where none was.

    n_labels: how many classes there are, where labels are known already.
    """

    format: str
    width_px: int
    height_px: int
    outputs: tuple[TensorSpec, ...]
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    n_labels: int | None = None

    def cells(self, strides: tuple[int, ...]) -> int:
        """The cells of all feature maps of these strides."""
        return sum(-(-self.height_px // s) * -(-self.width_px // s) for s in strides)

    def is_grid(self, n: int) -> tuple[int, ...] | None:
        """The strides whose maps have n cells together, None for no known ones."""
        return next((strides for strides in _STRIDES if self.cells(strides) == n), None)

    def only(self, dimensions: int) -> TensorSpec | None:
        """The one output, where there is one, it has so many dimensions, and their lengths are known."""
        one = self.outputs[0] if len(self.outputs) == 1 else None
        known = one and len(one.shape) == dimensions and one.shape[0] == 1 and None not in one.shape
        return one if known else None


@dataclass(frozen=True, slots=True)
class HeadGuess:
    """family: of `pictures.FAMILIES`. n_classes: None where the outputs do not tell."""

    family: str
    spec: HeadSpec
    n_classes: int | None
    why: str


def recognise(evidence: HeadEvidence, head: str | None = None) -> HeadGuess | None:
    """The head that fits the outputs; with `head`, that one or none."""
    for guesser in _GUESSERS:
        guess = guesser(evidence)
        if guess and head in (None, guess.spec.type):
            return guess
    return None


def shown(shape: tuple[int | None, ...]) -> str:
    """A shape as text."""
    return f"[{', '.join(str(size or 'any') for size in shape)}]"


def _yolov8(evidence: HeadEvidence) -> HeadGuess | None:
    one = evidence.only(3)
    if one is None or one.shape[1] <= 4 or one.shape[2] >= 1 << 24:  # type: ignore[operator]
        return None
    strides = evidence.is_grid(int(one.shape[2] or 0))
    if strides is None:
        return None
    n_classes = int(one.shape[1] or 0) - 4
    boxes = evidence.values[one.name][0, :4].T if one.name in evidence.values else None
    options = {"box_unit": "relative"} if _relative(evidence, boxes) else {}
    why = f"{shown(one.shape)}: 4 + {n_classes} rows, a column per cell of strides {_told(strides)}"
    return HeadGuess("ultralytics", HeadSpec("yolov8", {"columns": one.name}, options), n_classes, why)


def _yolov5(evidence: HeadEvidence) -> HeadGuess | None:
    one = evidence.only(3)
    if one is None or one.shape[2] < 6:  # type: ignore[operator]
        return None
    n, n_classes = int(one.shape[1] or 0), int(one.shape[2] or 0) - 5
    anchors = n % 3 == 0 and evidence.is_grid(n // 3)
    values = evidence.values.get(one.name)
    decoded = bool(evidence.is_grid(n)) and values is not None and _is_boxes_and_scores(values[0])
    if not anchors and not decoded:
        return None
    rows = values[0, :, :4] if values is not None else None
    options = {"box_unit": "relative"} if _relative(evidence, rows) else {}
    places = "three rows per cell" if anchors else "a row per cell, its boxes decoded"
    why = f"{shown(one.shape)}: {places}, 5 + {n_classes} columns"
    return HeadGuess("ultralytics", HeadSpec("yolov5", {"rows": one.name}, options), n_classes, why)


def _yolox(evidence: HeadEvidence) -> HeadGuess | None:
    one = evidence.only(3)
    if one is None or one.shape[2] < 6:  # type: ignore[operator]
        return None
    n, n_classes = int(one.shape[1] or 0), int(one.shape[2] or 0) - 5
    strides = evidence.is_grid(n)
    values = evidence.values.get(one.name)
    if strides is None or (values is not None and not _in_unit(values[0, :, 4:])):
        return None
    options = {} if strides == (8, 16, 32) else {"strides": list(strides)}
    why = (
        f"{shown(one.shape)}: a row per cell of strides {_told(strides)}, 5 + {n_classes} columns, logarithms"
    )
    return HeadGuess("yolox", HeadSpec("yolox", {"rows": one.name}, options), n_classes, why)


def _nanodet(evidence: HeadEvidence) -> HeadGuess | None:
    one = evidence.only(3)
    if one is None or one.shape[1] != evidence.cells(_NANODET_STRIDES):
        return None
    n_classes = int(one.shape[2] or 0) - _NANODET_BINS
    values = evidence.values.get(one.name)
    if n_classes < 1 or values is None or _in_unit(values[0, :, n_classes:]):
        return None
    strides = _told(_NANODET_STRIDES)
    why = f"{shown(one.shape)}: a row per cell of strides {strides}, {n_classes} + 4 x 8 columns"
    options = {} if _in_unit(values[0, :, :n_classes]) else {"score_activation": "sigmoid"}
    return HeadGuess("nanodet", HeadSpec("nanodet", {"rows": one.name}, options), n_classes, why)


def _end_to_end(evidence: HeadEvidence) -> HeadGuess | None:
    one = evidence.only(3)
    if one is None or one.shape[2] != 6 or int(one.shape[1] or 0) > _MOST_ROWS:
        return None
    boxes = evidence.values[one.name][0, :, :4] if one.name in evidence.values else None
    options = {"box_unit": "relative"} if _relative(evidence, boxes) else {}
    # No right side lies left of its left one: such rows hold centres and sizes, as RT-DETR's do.
    if boxes is not None and (boxes[:, 2:] < boxes[:, :2]).any():
        why = f"{shown(one.shape)}: few rows of centre, size, score, class"
        spec = HeadSpec("end_to_end", {"rows": one.name}, {"box_order": "cxcywh", **options})
        return HeadGuess("rtdetr", spec, None, why)
    why = f"{shown(one.shape)}: few rows of left, top, right, bottom, score, class"
    return HeadGuess("ultralytics", HeadSpec("end_to_end", {"rows": one.name}, options), None, why)


def _detr_rows(evidence: HeadEvidence) -> HeadGuess | None:
    one = evidence.only(3)
    if one is None or one.shape[2] <= 6 or int(one.shape[1] or 0) > _MOST_ROWS:  # type: ignore[operator]
        return None
    values = evidence.values.get(one.name)
    n_classes = int(one.shape[2] or 0) - 4
    if evidence.is_grid(int(one.shape[1] or 0)) or (values is not None and not _in_unit(values[0, :, 4:])):
        return None
    why = f"{shown(one.shape)}: few rows of 4 + {n_classes} columns, all scores from 0 to 1"
    return HeadGuess("rtdetr", HeadSpec("detr_rows", {"rows": one.name}), n_classes, why)


def _centernet(evidence: HeadEvidence) -> HeadGuess | None:
    maps = [one for one in evidence.outputs if len(one.shape) == 4 and one.shape[0] == 1]
    pairs = [one for one in maps if one.shape[1] == 2]
    heat = next((one for one in maps if one.shape[1] not in (2, 10, None)), None)
    if heat is None or len(pairs) != 2 or any(one.shape[2:] != heat.shape[2:] for one in pairs):
        return None
    stride = round(evidence.width_px / int(heat.shape[3] or evidence.width_px))
    roles = {"heatmap": heat.name, "sizes": pairs[0].name, "offsets": pairs[1].name}
    n_classes = int(heat.shape[1] or 0)
    face = n_classes == 1 and any(one.shape[1] == 10 for one in maps)
    options: dict[str, object] = {"variant": "centerface" if face else "centernet", "stride": stride}
    values = evidence.values.get(heat.name)
    if values is not None and not _in_unit(values):
        options["score_activation"] = "sigmoid"
    marks = ", ten of landmarks (not read)" if face else ""
    why = f"maps {shown(heat.shape)} of classes, two pairs of sizes and offsets{marks}, stride {stride}"
    return HeadGuess(str(options["variant"]), HeadSpec("centernet", roles, options), n_classes, why)


def _ssd(evidence: HeadEvidence) -> HeadGuess | None:
    pair = _boxes_and_rows(evidence)
    if pair is None or pair[0].shape[1] != len(
        ssd_mobilenet_v2_anchors(evidence.width_px, evidence.height_px)
    ):
        return None
    boxes, scores = pair
    values = evidence.values.get(scores.name)
    activation = "none" if values is not None and _in_unit(values) else "sigmoid"
    n_classes = int(scores.shape[2] or 0) - 1
    why = f"{shown(boxes.shape)}: a row per anchor of SSD MobileNet; scores {shown(scores.shape)}"
    roles = {"boxes": boxes.name, "scores": scores.name}
    return HeadGuess("tf", HeadSpec("ssd", roles, {"score_activation": activation}), n_classes, why)


def _detr(evidence: HeadEvidence) -> HeadGuess | None:
    pair = _boxes_and_rows(evidence)
    if pair is None or int(pair[0].shape[1] or 0) > _MOST_ROWS:
        return None
    boxes, logits = pair
    queries, columns = int(logits.shape[1] or 0), int(logits.shape[2] or 0)
    # DETR has 100 queries and "no object" as 92nd class of COCO; RT-DETR has neither.
    softmax = columns == evidence.n_labels + 1 if evidence.n_labels else (queries, columns) == (100, 92)
    n_classes = columns - softmax
    options = {"score_activation": "softmax" if softmax else "sigmoid"}
    why = f"{queries} queries: {shown(boxes.shape)} boxes, {shown(logits.shape)} classes" + (
        ", the last of nothing" if softmax else ""
    )
    spec = HeadSpec("detr", {"logits": logits.name, "boxes": boxes.name}, options)
    return HeadGuess("detr" if softmax else "rtdetr", spec, n_classes, why)


def _decoded(evidence: HeadEvidence) -> HeadGuess | None:
    boxes = _prefer([one for one in evidence.outputs if len(one.shape) == 3 and one.shape[2] == 4])
    flat = [one for one in evidence.outputs if len(one.shape) == 2 and one.shape[0] == 1]
    classes, scores = _classes_and_scores(flat, evidence)
    if boxes is None or classes is None or scores is None:
        return None
    roles = {"boxes": boxes.name, "scores": scores.name, "classes": classes.name}
    count = next((one for one in evidence.outputs if one.shape == (1,)), None)
    if count is not None:
        roles["count"] = count.name
    why = f"boxes {shown(boxes.shape)}, classes and scores {shown(scores.shape)}, chosen by the graph"
    if evidence.format == "tflite":
        return HeadGuess("tf", HeadSpec("tflite_detection", roles), None, why)
    if "detection_" in boxes.name:
        options = {"box_order": "yxyx", "box_unit": "relative", "first_class": 1}
        return HeadGuess("tf", HeadSpec("decoded", roles, options), None, why)
    return HeadGuess("rtdetr", HeadSpec("decoded", roles), None, why)


def _classifier(evidence: HeadEvidence) -> HeadGuess | None:
    rows = [one for one in evidence.outputs if len(one.shape) == 2 and one.shape[0] == 1 and one.shape[1]]
    if len(rows) != len(evidence.outputs) or not rows:
        return None
    # Of several, such as classes and features: the one with as many as there are labels, or named so.
    fits = [one for one in rows if one.shape[1] == evidence.n_labels]
    named = [one for one in rows if any(word in one.name.lower() for word in ("logit", "prob", "class"))]
    one = (fits or named or rows)[0]
    if len(rows) > 1 and not (fits or named):
        return None
    values = evidence.values.get(one.name)
    shares = values is not None and _in_unit(values) and abs(float(values.sum()) - 1) < 1e-2
    why = f"{shown(one.shape)}: one number per class, {'sum 1' if shares else 'not yet shares of 1'}"
    spec = HeadSpec("classifier", {"logits": one.name}, {"activation": "none" if shares else "softmax"})
    return HeadGuess("classifier", spec, int(one.shape[1] or 0), why)


_GUESSERS: tuple[Callable[[HeadEvidence], HeadGuess | None], ...] = (
    _yolov8,
    _yolov5,
    _nanodet,
    _yolox,
    _end_to_end,
    _detr_rows,
    _decoded,
    _centernet,
    _ssd,
    _detr,
    _classifier,
)


def _told(strides: tuple[int, ...]) -> str:
    return ", ".join(map(str, strides))


def _in_unit(values: np.ndarray) -> bool:
    return bool(values.size and values.min() >= -1e-3 and values.max() <= 1 + 1e-3)


def _is_boxes_and_scores(rows: np.ndarray) -> bool:
    """Whether (n, 5 + c) rows hold decoded boxes: YOLOX's logarithms are below 0 too, and never large."""
    sizes = rows[:, 2:4]
    return bool((sizes >= 0).all() and (sizes > _MOST_LOGARITHM).any()) and _in_unit(rows[:, 4:])


def _relative(evidence: HeadEvidence, boxes: np.ndarray | None) -> bool:
    """Whether (n, 4) boxes are in shares of the picture. TFLite exports are, unless the numbers deny it."""
    if boxes is None:
        return evidence.format == "tflite"
    return float(np.abs(boxes).max()) <= 4.0


def _boxes_and_rows(evidence: HeadEvidence) -> tuple[TensorSpec, TensorSpec] | None:
    """Two outputs, (1, n, 4) and (1, n, k). Where both end in 4, names tell."""
    both = [one for one in evidence.outputs if len(one.shape) == 3 and None not in one.shape]
    if len(both) < 2:
        return None
    boxes = _prefer([one for one in both if one.shape[2] == 4])
    rows = [one for one in both if one is not boxes and boxes and one.shape[:2] == boxes.shape[:2]]
    return (boxes, rows[0]) if boxes and len(rows) == 1 else None


def _prefer(candidates: list[TensorSpec]) -> TensorSpec | None:
    """The one that is called boxes, and not raw ones; else the first."""
    named = [one for one in candidates if "box" in one.name.lower() and "raw" not in one.name.lower()]
    return (named or candidates or [None])[0]  # type: ignore[list-item]


# The operator's outputs as TFLite's converters name them, of TensorFlow 1 and 2.
_TFLITE_NAMES = {
    "TFLite_Detection_PostProcess:1": "class",
    "TFLite_Detection_PostProcess:2": "score",
    "StatefulPartitionedCall:2": "class",
    "StatefulPartitionedCall:1": "score",
}


def _classes_and_scores(
    flat: list[TensorSpec], evidence: HeadEvidence
) -> tuple[TensorSpec | None, TensorSpec | None]:
    """Which of the (1, n) outputs are which: by name, by whole numbers, by what is left."""

    def first(*tests: Callable[[TensorSpec], bool]) -> TensorSpec | None:
        return next((one for test in tests for one in flat if test(one)), None)

    def called(one: TensorSpec, *words: str) -> bool:
        name = _TFLITE_NAMES.get(one.name, one.name).lower()
        return any(word in name for word in words) and "multiclass" not in name and "anchor" not in name

    def counts(one: TensorSpec) -> bool:
        values = evidence.values.get(one.name)
        return values is not None and bool((values == np.rint(values)).all()) and bool(values.any())

    classes = first(
        lambda one: called(one, "class", "label"), lambda one: one.dtype.startswith("int"), counts
    )
    flat = [one for one in flat if one is not classes]
    scores = first(lambda one: called(one, "score", "conf", "prob"), lambda _: len(flat) == 1)
    return classes, scores
