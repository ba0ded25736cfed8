"""Rules for heads that predict on a grid: one row, column or map cell per position."""

from __future__ import annotations

import numpy as np

from edge_vision.core.model_spec import HeadSpec
from edge_vision.errors import BundleError
from edge_vision.importer.head_evidence import HeadEvidence, HeadGuess, format_shape, in_unit_interval

# NanoDet-Plus has four feature maps and its points in the corners of cells, NanoDet three and the centres.
_NANODET_OF_STRIDES = {(8, 16, 32, 64): ("nanodet", 0.0), (8, 16, 32): ("nanodet_m", 0.5)}
_REG_MAX = 7  # Of all NanoDet-Plus; of NanoDet either this or 10.
_NANODET_REG_MAX = (_REG_MAX, 10)
_COCO_CLASSES = 80
_MAX_LOG_SIZE = 10.0  # Of a size in cells: e ** 10 cells exceed any image.


def yolov8(evidence: HeadEvidence) -> HeadGuess | None:
    """One column per grid cell: box and class scores."""
    one = evidence.single(3)
    if one is None or one.shape[1] <= 4 or one.shape[2] >= 1 << 24:  # type: ignore[operator]
        return None
    strides = evidence.strides_of(int(one.shape[2] or 0))
    if strides is None:
        return None
    n_classes = int(one.shape[1] or 0) - 4
    boxes = evidence.values[one.name][0, :4].T if one.name in evidence.values else None
    options = {"box_unit": "relative"} if evidence.has_relative_boxes(boxes) else {}
    why = f"{format_shape(one.shape)}: 4 + {n_classes} rows, a column per cell of strides {_joined(strides)}"
    return HeadGuess("ultralytics", HeadSpec("yolov8", {"columns": one.name}, options), n_classes, why)


def yolov8_rows(evidence: HeadEvidence, requested: bool = False) -> HeadGuess | None:
    """One row per grid cell: box and class scores, without objectness.

    YOLOv5's and YOLOX's rows have the same form with one more column: the number of labels decides, or COCO's
    80 classes if it is unknown. requested: the user chose this head. Raises BundleError if nothing decides.
    """
    one = evidence.single(3)
    if one is None or one.shape[2] <= 4 or evidence.strides_of(int(one.shape[1] or 0)) is None:  # type: ignore[operator]
        return None
    n_classes = int(one.shape[2] or 0) - 4
    values = evidence.values.get(one.name)
    if values is not None and not _is_sizes_and_scores(values[0]):
        return None
    with_objectness = values is not None and _is_boxes_and_scores(values[0]) and n_classes > 1
    if not requested and n_classes > 1 and n_classes != (n_labels := evidence.n_labels or _COCO_CLASSES):
        if with_objectness and n_classes - 1 != n_labels:
            raise BundleError(
                f"expected an output that one head reads, got {format_shape(one.shape)}: YOLOv8 with "
                f"{n_classes} classes, or YOLOv5 with {n_classes - 1}; give the labels (--labels FILE), or "
                f"--head yolov8 or yolov5"
            )
        return None
    boxes = values[0, :, :4] if values is not None else None
    options = {"box_unit": "relative"} if evidence.has_relative_boxes(boxes) else {}
    why = f"{format_shape(one.shape)}: a row per cell, 4 + {n_classes} columns, no objectness"
    return HeadGuess("ultralytics", HeadSpec("yolov8", {"rows": one.name}, options), n_classes, why)


def yolov5(evidence: HeadEvidence) -> HeadGuess | None:
    """One row per anchor: box, objectness and class scores."""
    one = evidence.single(3)
    if one is None or one.shape[2] < 6:  # type: ignore[operator]
        return None
    n, n_classes = int(one.shape[1] or 0), int(one.shape[2] or 0) - 5
    anchors = n % 3 == 0 and evidence.strides_of(n // 3)
    values = evidence.values.get(one.name)
    decoded = bool(evidence.strides_of(n)) and values is not None and _is_boxes_and_scores(values[0])
    if not anchors and not decoded:
        return None
    rows = values[0, :, :4] if values is not None else None
    options = {"box_unit": "relative"} if evidence.has_relative_boxes(rows) else {}
    layout = "three rows per cell" if anchors else "a row per cell, boxes decoded"
    why = f"{format_shape(one.shape)}: {layout}, 5 + {n_classes} columns"
    return HeadGuess("ultralytics", HeadSpec("yolov5", {"rows": one.name}, options), n_classes, why)


def yolox(evidence: HeadEvidence) -> HeadGuess | None:
    """One row per grid cell: box in cells and logarithms, objectness and class scores."""
    one = evidence.single(3)
    if one is None or one.shape[2] < 6:  # type: ignore[operator]
        return None
    n, n_classes = int(one.shape[1] or 0), int(one.shape[2] or 0) - 5
    strides = evidence.strides_of(n)
    values = evidence.values.get(one.name)
    if strides is None or (values is not None and not in_unit_interval(values[0, :, 4:])):
        return None
    options = {} if strides == (8, 16, 32) else {"strides": list(strides)}
    cells = f"a row per cell of strides {_joined(strides)}"
    why = f"{format_shape(one.shape)}: {cells}, 5 + {n_classes} columns, logarithms"
    return HeadGuess("yolox", HeadSpec("yolox", {"rows": one.name}, options), n_classes, why)


def nanodet(evidence: HeadEvidence) -> HeadGuess | None:
    """One row per grid cell: class scores and the distributions of four distances."""
    one = evidence.single(3)
    values = evidence.values.get(one.name) if one else None
    strides = next((s for s in _NANODET_OF_STRIDES if one and one.shape[1] == evidence.cells(s)), None)
    if one is None or values is None or strides is None:
        return None
    family, cell_offset = _NANODET_OF_STRIDES[strides]
    n_classes, activated = _nanodet_classes(values[0], evidence.n_labels, strides)
    if n_classes < 1 or in_unit_interval(values[0, :, n_classes:]):
        return None
    reg_max = (values.shape[2] - n_classes) // 4 - 1
    optional: dict[str, tuple[object, object]] = {
        "strides": (list(strides), [8, 16, 32, 64]),
        "reg_max": (reg_max, _REG_MAX),
        "cell_offset": (cell_offset, 0.0),
        "score_activation": ("none" if activated else "sigmoid", "none"),
    }
    options = {key: value for key, (value, default) in optional.items() if value != default}
    columns = f"{n_classes} + 4 x {reg_max + 1} columns"
    why = f"{format_shape(one.shape)}: a row per cell of strides {_joined(strides)}, {columns}"
    return HeadGuess(family, HeadSpec("nanodet", {"rows": one.name}, options), n_classes, why)


def _nanodet_classes(rows: np.ndarray, n_labels: int | None, strides: tuple[int, ...]) -> tuple[int, bool]:
    """The number of classes in NanoDet's rows, 0 if nothing shows it; whether they are scores, not logits.

    The columns before the distances are those from 0 to 1, as few of the distances are by chance. If they are
    logits, the number of labels (COCO's 80 if unknown) or NanoDet-Plus's one reg_max decides.
    """
    width = rows.shape[1]
    scores = (rows.min(axis=0) >= -1e-3) & (rows.max(axis=0) <= 1 + 1e-3)
    n_scores = width if scores.all() else int(scores.argmin())
    published = [width - 4 * (reg_max + 1) for reg_max in _NANODET_REG_MAX]
    of_labels = [n_labels] if n_labels and width - n_labels >= 8 and (width - n_labels) % 4 == 0 else []
    if fitting := [n for n in (*published, *of_labels) if n >= 1 and n_scores - 3 <= n <= n_scores]:
        return max(fitting), True
    if len(strides) == 4:
        return published[0], False
    n_classes = n_labels or _COCO_CLASSES
    return (n_classes if n_classes in published else 0), False


def centernet(evidence: HeadEvidence) -> HeadGuess | None:
    """Feature maps: a heatmap per class, sizes and offsets."""
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
    if values is not None and not in_unit_interval(values):
        options["score_activation"] = "sigmoid"
    landmarks = ", ten of landmarks (ignored)" if face else ""
    shape = format_shape(heat.shape)
    why = f"maps {shape} of classes, two pairs of sizes and offsets{landmarks}, stride {stride}"
    return HeadGuess(str(options["variant"]), HeadSpec("centernet", roles, options), n_classes, why)


def _joined(strides: tuple[int, ...]) -> str:
    return ", ".join(map(str, strides))


def _is_sizes_and_scores(rows: np.ndarray) -> bool:
    """Whether (n, 4 + c) rows have sizes of at least 0 and scores."""
    return bool((rows[:, 2:4] >= 0).all()) and in_unit_interval(rows[:, 4:])


def _is_boxes_and_scores(rows: np.ndarray) -> bool:
    """Whether (n, 5 + c) rows are decoded boxes, in pixels or relative.

    YOLOX has logarithms, some negative and none large.
    """
    sizes = rows[:, 2:4]
    large = bool((sizes >= 0).all() and (sizes > _MAX_LOG_SIZE).any())
    return (large or in_unit_interval(rows[:, :4])) and in_unit_interval(rows[:, 4:])
