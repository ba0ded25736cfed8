"""Heads of graphs that select their objects themselves, against loops over the raw predictions.

The graphs suppress with ONNX's own NonMaxSuppression, so the number of their rows is only known after a run.
Its definition: per class, greedy, best first, a candidate is dropped if its IoU with a selected one exceeds
the threshold. Graphs of oriented boxes, for which ONNX has no suppression, give every candidate, as YOLO26.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from import_cases import save
from onnx import TensorProto, helper, numpy_helper
from shape_cases import Export
from shape_reference import (
    EXPORTS,
    MASKED,
    THRESHOLDS,
    assert_masks,
    assert_oriented,
    assert_points,
    corners_at,
    detector_of,
    frame_of,
    kept,
    obb_columns,
    pose_columns,
    relative_points,
    seg_outputs,
    shown,
    source_box,
)

from edge_vision.core.detections import Detections
from edge_vision.core.model_spec import HeadSpec


def suppressing_graph(
    path: Path,
    export: Export,
    columns: np.ndarray,
    more: dict[str, np.ndarray] | None = None,
    corners: bool = True,
    finish: list | None = None,
    outputs: dict[str, tuple[int, list]] | None = None,
) -> Path:
    """Selects from (4 + classes + extra, cells) columns with boxes and points in pixels.

    Output: rows (1, n, 6 + extra), with boxes as corners or as centre and size, in the export's unit; or what
    the nodes `finish` make of box, score, class and extra.
    """
    n = export.n_classes
    centre = columns[:4].T.astype(np.float32)
    xyxy = np.concatenate((centre[:, :2] - centre[:, 2:] / 2, centre[:, :2] + centre[:, 2:] / 2), axis=1)
    unit = np.array([export.width, export.height] * 2 if export.relative else 1, np.float32)
    weights = {
        "xyxy": xyxy[None],
        "boxes_of_all": ((xyxy if corners else centre) / unit)[None].astype(np.float32),
        "scores_of_all": columns[None, 4 : 4 + n],
        "extra_of_all": np.ascontiguousarray(columns[4 + n :].T)[None],
        "most": np.array([100], np.int64),
        "iou": np.array([THRESHOLDS.iou_threshold], np.float32),
        "low": np.array([0.1], np.float32),
        "at_class": np.array(1, np.int64),
        "at_box": np.array(2, np.int64),
        "as_rows": np.array([1, -1, 1], np.int64),
        **{f"{name}_value": value for name, value in (more or {}).items()},
    }
    node = helper.make_node
    suppression = node("NonMaxSuppression", ["xyxy", "scores_of_all", "most", "iou", "low"], ["selected"])
    if columns.shape[0] == 4 + n + 1:  # Oriented boxes.
        suppression = node("NonZero", ["candidate"], ["transposed"])
    nodes = [
        suppression,
        node("Gather", ["selected", "at_class"], ["class"], axis=1),
        node("Gather", ["selected", "at_box"], ["index"], axis=1),
        node("Gather", ["boxes_of_all", "index"], ["box"], axis=1),
        node("Gather", ["extra_of_all", "index"], ["extra"], axis=1),
        node("GatherND", ["scores_of_all", "selected"], ["score"]),
        *(node("Identity", [f"{name}_value"], [name]) for name in more or {}),
    ]
    if suppression.op_type == "NonZero":
        nodes.insert(0, node("Greater", ["scores_of_all", "low"], ["candidate"]))
        nodes.insert(2, node("Transpose", ["transposed"], ["selected"], perm=[1, 0]))
    nodes += finish or [
        node("Cast", ["class"], ["class_float"], to=TensorProto.FLOAT),
        node("Reshape", ["class_float", "as_rows"], ["class_rows"]),
        node("Reshape", ["score", "as_rows"], ["score_rows"]),
        node("Concat", ["box", "score_rows", "class_rows", "extra"], ["rows"], axis=2),
    ]
    return save(
        path,
        nodes,
        {"images": (TensorProto.FLOAT, [1, 3, export.height, export.width])},
        (outputs or {"rows": (TensorProto.FLOAT, [1, "n", 6 + len(columns) - 4 - n])})
        | {name: (TensorProto.FLOAT, list(value.shape)) for name, value in (more or {}).items()},
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )


def detect(graph: Path, export: Export, head: str, roles: tuple[str, ...], **options: object) -> Detections:
    if export.relative:
        options["box_unit"] = "relative"
    spec = HeadSpec(head, {name: name for name in roles}, options)
    return detector_of(graph, export, spec).detect(frame_of(export), with_masks=True).detections


def crowded(export: Export) -> np.ndarray:
    """(4 + classes, cells): objects beside near copies, of which suppression keeps one."""
    columns, cells = export.columns(7, 20)
    for first, second in zip(cells[:10], cells[10:], strict=True):
        columns[:4, second] = columns[:4, first] + 1
        columns[4:, second] = columns[4:, first] * 0.9
    return columns


def assert_boxes(found: Detections, export: Export, columns: np.ndarray) -> None:
    expected = shown(export, columns)
    assert 4 < len(expected) < len(kept(columns, export.n_classes, lambda a, b: 0.0))
    assert found.class_ids.tolist() == [one[1] for one in expected]
    np.testing.assert_allclose(found.scores, [one[2] for one in expected], atol=1e-6)
    boxes = [source_box(export, corners_at(columns, one[0])) for one in expected]
    np.testing.assert_allclose(found.xyxy_px, boxes, atol=1e-2)


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.name)
def test_boxes(tmp_path: Path, export: Export) -> None:
    columns = crowded(export)
    corners = not export.transposed
    graph = suppressing_graph(tmp_path / "m.onnx", export, columns, corners=corners)
    options = {} if corners else {"box_order": "cxcywh"}
    assert_boxes(detect(graph, export, "end_to_end", ("rows",), **options), export, columns)


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.name)
@pytest.mark.parametrize("classes", [TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT])
def test_boxes_scores_and_classes_apart(tmp_path: Path, export: Export, classes: int) -> None:
    """TF's layout: one output each, and classes of any type."""
    columns = crowded(export)
    node = helper.make_node
    finish = [
        node("Identity", ["box"], ["boxes"]),
        node("Unsqueeze", ["score", "axis"], ["scores"]),
        node("Cast", ["class"], ["class_typed"], to=classes),
        node("Unsqueeze", ["class_typed", "axis"], ["classes"]),
    ]
    finish.insert(0, node("Constant", [], ["axis"], value_ints=[0]))
    outputs = {
        "boxes": (TensorProto.FLOAT, [1, "n", 4]),
        "scores": (TensorProto.FLOAT, [1, "n"]),
        "classes": (classes, [1, "n"]),
    }
    graph = suppressing_graph(tmp_path / "m.onnx", export, columns, finish=finish, outputs=outputs)
    assert_boxes(detect(graph, export, "decoded", tuple(outputs)), export, columns)


@pytest.mark.parametrize("export", MASKED, ids=lambda export: export.name)
def test_masks(tmp_path: Path, export: Export) -> None:
    columns, prototypes = seg_outputs(export)
    options = {"prototype_layout": "nhwc"} if export.transposed else {}
    given = np.ascontiguousarray(prototypes.transpose(1, 2, 0) if options else prototypes)[None]
    graph = suppressing_graph(tmp_path / "m.onnx", export, columns, {"prototypes": given})
    found = detect(graph, export, "end_to_end_seg", ("rows", "prototypes"), **options)
    assert len(found) > 4
    assert_masks(found, export, shown(export, columns), columns, prototypes)


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.name)
def test_oriented_boxes(tmp_path: Path, export: Export) -> None:
    columns = obb_columns(export)
    graph = suppressing_graph(tmp_path / "m.onnx", export, columns, corners=False)
    expected = kept(columns, export.n_classes, lambda a, b: 0.0)
    assert_oriented(detect(graph, export, "end_to_end_obb", ("rows",)), export, expected, columns)


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.name)
def test_key_points(tmp_path: Path, export: Export) -> None:
    columns = pose_columns(export)
    graph = suppressing_graph(tmp_path / "m.onnx", export, relative_points(export, columns))
    options = dict(zip(("keypoints", "point_values"), export.points, strict=True))
    found = detect(graph, export, "end_to_end_pose", ("rows",), **options)
    assert len(found) > 4
    assert_points(found, export, shown(export, columns), columns)


def test_no_object_is_no_row(tmp_path: Path) -> None:
    export = EXPORTS[1]
    columns, prototypes = seg_outputs(export)
    columns[4 : 4 + export.n_classes] *= 0.1
    graph = suppressing_graph(tmp_path / "m.onnx", export, columns, {"prototypes": prototypes[None]})
    found = detect(graph, export, "end_to_end_seg", ("rows", "prototypes"))
    assert len(found) == 0 and found.shapes is not None and len(found.shapes.rows) == 0
