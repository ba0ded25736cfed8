"""The heads of the YOLO family against boxes that are known because the test encoded them.

The encodings are written here from the published definitions, and where the graph decodes (YOLOv5, YOLOv8),
that part of the graph is built here with ONNX's own operators and runs in ONNX Runtime.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from head_cases import (
    INPUT,
    KNOWN,
    N_LABELS,
    Known,
    assert_found,
    centres_of,
    constant_graph,
    in_model,
    run_graph,
    specs_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import save_graph
from onnx import helper, numpy_helper

from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.detect.heads import make_head
from edge_vision.errors import HeadError

STRIDES = (8, 16, 32)
# YOLOv5's own anchors (models/yolov5s.yaml), width and height in pixels, three per stride.
ANCHORS = {
    8: ((10, 13), (16, 30), (33, 23)),
    16: ((30, 61), (62, 45), (59, 119)),
    32: ((116, 90), (156, 198), (373, 326)),
}
# A worse copy of the best object, moved by less than a tenth of its size: suppression must take it.
COPY = Known((44.0, 70.0, 149.0, 310.0), 0.61, 2)


def unsigmoid(p: float) -> float:
    return math.log(p / (1 - p))


# --- YOLOv5: the graph decodes anchors ---


def yolov5_raw(known: tuple[Known, ...]) -> dict[int, np.ndarray]:
    """stride -> (1, 3, rows, columns, 5 + classes): what the last convolution gives."""
    raw = {s: np.full((1, 3, 640 // s, 640 // s, 5 + N_LABELS), -9.0) for s in STRIDES}
    for one in known:
        cx, cy, w, h = centres_of(in_model(one.xyxy))
        # Any anchor may have an object up to four times its size: the best that is free.
        s, a = min(
            ((s, a) for s in STRIDES for a in range(3) if raw[s][0, a, int(cy // s), int(cx // s), 4] == -9),
            key=lambda p: (
                abs(math.log(w / ANCHORS[p[0]][p[1]][0])) + abs(math.log(h / ANCHORS[p[0]][p[1]][1]))
            ),
        )
        column, row = int(cx // s), int(cy // s)
        cell = raw[s][0, a, row, column]
        cell[0] = unsigmoid((cx / s - column + 0.5) / 2)
        cell[1] = unsigmoid((cy / s - row + 0.5) / 2)
        cell[2] = unsigmoid(math.sqrt(w / ANCHORS[s][a][0]) / 2)
        cell[3] = unsigmoid(math.sqrt(h / ANCHORS[s][a][1]) / 2)
        cell[4] = unsigmoid(0.97)
        cell[5 + one.class_id] = unsigmoid(one.score / 0.97)
    return raw


def yolov5_graph(path: Path, known: tuple[Known, ...]) -> Path:
    """Detect of YOLOv5 in operators: xy = (2 s - 0.5 + cell) * stride, wh = (2 s) ^ 2 * anchor."""
    weights, nodes, parts = [], [], []

    def weight(name: str, value: object, dtype: type = np.float32) -> str:
        weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    two = weight("two", 2)
    split = weight("split", [2, 2, 1 + N_LABELS], np.int64)
    for s, raw in yolov5_raw(known).items():
        n = 640 // s
        grid = np.stack(np.meshgrid(np.arange(n), np.arange(n)), axis=-1).reshape(1, 1, n, n, 2)
        nodes += [
            helper.make_node("Sigmoid", [weight(f"raw{s}", raw)], [f"s{s}"]),
            helper.make_node("Split", [f"s{s}", split], [f"xy{s}", f"wh{s}", f"p{s}"], axis=-1),
            helper.make_node("Mul", [f"xy{s}", two], [f"xy2{s}"]),
            helper.make_node("Add", [f"xy2{s}", weight(f"grid{s}", grid - 0.5)], [f"cells{s}"]),
            helper.make_node("Mul", [f"cells{s}", weight(f"stride{s}", s)], [f"centre{s}"]),
            helper.make_node("Mul", [f"wh{s}", two], [f"wh2{s}"]),
            helper.make_node("Mul", [f"wh2{s}", f"wh2{s}"], [f"square{s}"]),
            helper.make_node(
                "Mul",
                [f"square{s}", weight(f"anchor{s}", np.reshape(ANCHORS[s], (1, 3, 1, 1, 2)))],
                [f"size{s}"],
            ),
            helper.make_node("Concat", [f"centre{s}", f"size{s}", f"p{s}"], [f"all{s}"], axis=-1),
            helper.make_node(
                "Reshape", [f"all{s}", weight(f"flat{s}", [1, -1, 5 + N_LABELS], np.int64)], [f"rows{s}"]
            ),
        ]
        parts.append(f"rows{s}")
    nodes.append(helper.make_node("Concat", parts, ["output0"], axis=1))
    n = sum(3 * (640 // s) ** 2 for s in STRIDES)
    return save_graph(
        path, nodes, {"images": [1, 3, 640, 640]}, {"output0": [1, n, 5 + N_LABELS]}, tuple(weights)
    )


def test_yolov5_decodes_its_anchors(tmp_path: Path) -> None:
    graph = yolov5_graph(tmp_path / "v5.onnx", KNOWN)
    assert_found(run_graph(graph, HeadSpec("yolov5", {"rows": "output0"})))


def test_yolov5_suppresses_the_copy_and_only_within_the_class(tmp_path: Path) -> None:
    graph = yolov5_graph(tmp_path / "v5.onnx", (*KNOWN, COPY))
    spec = HeadSpec("yolov5", {"rows": "output0"})
    assert_found(run_graph(graph, spec))
    assert_found(run_graph(graph, spec, Thresholds(0.5, 0.95, 100)), (*KNOWN, COPY))


def test_yolov5_needs_objectness_and_class_together(tmp_path: Path) -> None:
    """0.6 * 0.6 is below 0.5, though each is above."""
    rows = np.zeros((1, 3, 5 + N_LABELS), np.float32)
    rows[0, :, :4] = [[150, 320, 50, 50], [350, 320, 50, 50], [550, 320, 50, 50]]
    rows[0, 0, 4:6] = 0.6, 0.6
    rows[0, 1, 4:6] = 0.9, 0.9
    graph = constant_graph(tmp_path / "v5.onnx", {"o": rows})
    found = run_graph(graph, HeadSpec("yolov5", {"rows": "o"}))
    np.testing.assert_allclose(found.scores, [0.81], atol=1e-6)


@pytest.mark.parametrize("head, role", [("yolov5", "rows"), ("yolov8", "columns")])
def test_relative_boxes_of_tflite_exports(tmp_path: Path, head: str, role: str) -> None:
    n, first = len(KNOWN), 5 if head == "yolov5" else 4
    rows = np.zeros((n, first + N_LABELS), np.float32)
    for row, one in zip(rows, KNOWN, strict=True):
        row[:4] = centres_of(in_model(one.xyxy)) / 640
        row[4] = 1.0
        row[first:] = 0.0
        row[first + one.class_id] = one.score
    graph = constant_graph(tmp_path / "g.onnx", {"o": (rows if head == "yolov5" else rows.T)[None].copy()})
    assert_found(run_graph(graph, HeadSpec(head, {role: "o"}, {"box_unit": "relative"})))


# --- YOLOv8: the graph decodes distributions ---


def yolov8_raw(
    known: tuple[Known, ...], bins: int = 16
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logits of distances (1, 4 * bins, n) and classes (1, classes, n); points (2, n), strides (1, n)."""
    grids = [
        np.stack(np.meshgrid(np.arange(640 // s) + 0.5, np.arange(640 // s) + 0.5)).reshape(2, -1)
        for s in STRIDES
    ]
    points = np.concatenate(grids, axis=1)
    strides = np.concatenate(
        [np.full((1, g.shape[1]), s) for g, s in zip(grids, STRIDES, strict=True)], axis=1
    )
    distances = np.zeros((4, bins, points.shape[1]))
    classes = np.full((N_LABELS, points.shape[1]), -9.0)
    for one in known:
        x1, y1, x2, y2 = in_model(one.xyxy)
        # The finest map on which half of the larger side fits into the distribution.
        s = next(s for s in STRIDES if max(x2 - x1, y2 - y1) / 2 + s < (bins - 1) * s)
        cx, cy = (x1 + x2) / 2 / s, (y1 + y2) / 2 / s
        place = next(
            i
            for i in range(points.shape[1])
            if strides[0, i] == s
            and abs(points[0, i] - cx) <= 0.5
            and abs(points[1, i] - cy) <= 0.5
            and classes[:, i].max() == -9.0
        )
        px, py = points[:, place]
        for side, d in enumerate((px - x1 / s, py - y1 / s, x2 / s - px, y2 / s - py)):
            low = int(d)
            share = np.full(bins, 1e-9)
            share[low : low + 2] = 1 - (d - low), d - low
            distances[side, :, place] = np.log(np.maximum(share, 1e-9))
        classes[one.class_id, place] = unsigmoid(one.score)
    return distances.reshape(1, 4 * bins, -1), classes[None], points, strides


def yolov8_graph(path: Path, known: tuple[Known, ...]) -> Path:
    """Detect of YOLOv8 in operators: softmax over 16 bins, expectation, centre and size, sigmoid."""
    distances, classes, points, strides = yolov8_raw(known)
    n = points.shape[1]
    values = {
        "distances": distances,
        "classes": classes,
        "points": points[None],
        "strides": strides[None],
        "bins": np.arange(16).reshape(1, 1, 16, 1),
        "half": 0.5,
    }
    weights = [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in values.items()]
    weights += [
        numpy_helper.from_array(np.array(v, np.int64), k)
        for k, v in {"four": [1, 4, 16, n], "axis": [2], "halves": [2, 2]}.items()
    ]
    node = helper.make_node
    nodes = [
        node("Reshape", ["distances", "four"], ["d4"]),
        node("Softmax", ["d4"], ["shares"], axis=2),
        node("Mul", ["shares", "bins"], ["weighted"]),
        node("ReduceSum", ["weighted", "axis"], ["ltrb"], keepdims=0),
        node("Split", ["ltrb", "halves"], ["lt", "rb"], axis=1),
        node("Sub", ["points", "lt"], ["x1y1"]),
        node("Add", ["points", "rb"], ["x2y2"]),
        node("Add", ["x1y1", "x2y2"], ["sum"]),
        node("Mul", ["sum", "half"], ["centre"]),
        node("Sub", ["x2y2", "x1y1"], ["size"]),
        node("Concat", ["centre", "size"], ["cells"], axis=1),
        node("Mul", ["cells", "strides"], ["boxes"]),
        node("Sigmoid", ["classes"], ["scores"]),
        node("Concat", ["boxes", "scores"], ["output0"], axis=1),
    ]
    return save_graph(
        path, nodes, {"images": [1, 3, 640, 640]}, {"output0": [1, 4 + N_LABELS, n]}, tuple(weights)
    )


def test_yolov8_decodes_its_distributions(tmp_path: Path) -> None:
    graph = yolov8_graph(tmp_path / "v8.onnx", KNOWN)
    assert_found(run_graph(graph, HeadSpec("yolov8", {"columns": "output0"})))


def test_yolov8_suppresses_the_copy(tmp_path: Path) -> None:
    graph = yolov8_graph(tmp_path / "v8.onnx", (*KNOWN, COPY))
    spec = HeadSpec("yolov8", {"columns": "output0"})
    assert_found(run_graph(graph, spec))
    assert_found(run_graph(graph, spec, Thresholds(0.5, 0.95, 100)), (*KNOWN, COPY))
    assert len(run_graph(graph, spec, Thresholds(0.5, 0.5, 2))) == 2


# --- YOLOX: the head decodes the grid ---


def yolox_cells(width: int, height: int, strides: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """(column, row, stride) in the order of the output, one cell at a time."""
    return [(x, y, s) for s in strides for y in range(height // s) for x in range(width // s)]


def yolox_rows(known: tuple[Known, ...], strides: tuple[int, ...] = STRIDES) -> np.ndarray:
    """(1, n, 5 + classes): x = (cx / s - column), w = ln(w / s), each object in its own cell."""
    cells = yolox_cells(640, 640, strides)
    rows = np.zeros((1, len(cells), 5 + N_LABELS), np.float32)
    for i, one in enumerate(known):
        cx, cy, w, h = centres_of(in_model(one.xyxy))
        s = strides[i % len(strides)]
        place = cells.index((int(cx // s), int(cy // s), s))
        assert rows[0, place, 4] == 0
        rows[0, place, :5] = [cx / s - cx // s, cy / s - cy // s, math.log(w / s), math.log(h / s), 0.96]
        rows[0, place, 5 + one.class_id] = one.score / 0.96
    return rows


def test_yolox_decodes_its_grid(tmp_path: Path) -> None:
    graph = constant_graph(tmp_path / "x.onnx", {"output": yolox_rows(KNOWN)})
    assert_found(run_graph(graph, HeadSpec("yolox", {"rows": "output"})))
    copied = constant_graph(tmp_path / "y.onnx", {"output": yolox_rows((*KNOWN, COPY))})
    assert_found(run_graph(copied, HeadSpec("yolox", {"rows": "output"})))


def test_yolox_with_four_maps(tmp_path: Path) -> None:
    strides = (8, 16, 32, 64)
    graph = constant_graph(tmp_path / "x.onnx", {"output": yolox_rows(KNOWN, strides)})
    spec = HeadSpec("yolox", {"rows": "output"}, {"strides": list(strides)})
    assert_found(run_graph(graph, spec))
    with pytest.raises(HeadError, match=r"rows of shape \[1, 8400, 9\], output 'output' has \[1, 8500, 9\]"):
        run_graph(graph, HeadSpec("yolox", {"rows": "output"}))


SMALL = InputSpec("images", 128, 96)


@settings(deadline=None, max_examples=100)
@given(
    st.integers(0, 251),
    st.tuples(st.floats(-2, 3), st.floats(-2, 3)),
    st.tuples(st.floats(1, 300), st.floats(1, 300)),
)
def test_yolox_decodes_encoded_boxes_in_any_cell(place, offset, size) -> None:
    cells = yolox_cells(128, 96, STRIDES)
    x, y, s = cells[place]
    cx, cy = (x + offset[0]) * s, (y + offset[1]) * s
    rows = np.zeros((1, len(cells), 6), np.float32)
    rows[0, place] = [cx / s - x, cy / s - y, math.log(size[0] / s), math.log(size[1] / s), 1.0, 0.8]
    head = make_head(HeadSpec("yolox", {"rows": "o"}), SMALL, specs_of(o=rows.shape), 1)
    found = head.decode({"o": rows}, Thresholds())
    expected = [cx - size[0] / 2, cy - size[1] / 2, cx + size[0] / 2, cy + size[1] / 2]
    np.testing.assert_allclose(found.xyxy_model, [expected], atol=1e-2)


# --- End to end: rows of finished detections ---


def test_end_to_end_rows_are_taken_as_they_are(tmp_path: Path) -> None:
    rows = np.zeros((1, 300, 6), np.float32)
    for row, one in zip(rows[0], (*KNOWN, COPY), strict=False):
        row[:] = [*in_model(one.xyxy), one.score, one.class_id]
    graph = constant_graph(tmp_path / "e.onnx", {"output0": rows})
    assert_found(run_graph(graph, HeadSpec("end_to_end", {"rows": "output0"})), (*KNOWN, COPY))


def test_end_to_end_rows_of_centres_as_rtdetr_has(tmp_path: Path) -> None:
    rows = np.zeros((1, 300, 6), np.float32)
    for row, one in zip(rows[0], (*KNOWN, COPY), strict=False):
        row[:] = [*(centres_of(in_model(one.xyxy)) / 640), one.score, one.class_id]
    graph = constant_graph(tmp_path / "e.onnx", {"output0": rows})
    options = {"box_order": "cxcywh", "box_unit": "relative"}
    assert_found(run_graph(graph, HeadSpec("end_to_end", {"rows": "output0"}, options)), (*KNOWN, COPY))


# --- All of them ---


@pytest.mark.parametrize(
    "spec, shape, message",
    [
        (
            HeadSpec("yolov5", {"rows": "o"}),
            (1, 9, 8400),
            r"rows of shape \[1, n, 9\], output 'o' has \[1, 9, 8400\]",
        ),
        (HeadSpec("yolov5", {"rows": "o"}), (1, 25200, 85), r"\[1, n, 9\], output 'o' has \[1, 25200, 85\]"),
        (HeadSpec("yolov5", {"rows": "o"}), (25200, 9), r"\[1, n, 9\], output 'o' has \[25200, 9\]"),
        (HeadSpec("yolov5", {"rows": "o"}), (2, 25200, 9), r"\[1, n, 9\], output 'o' has \[2, 25200, 9\]"),
        (
            HeadSpec("yolov8", {"columns": "o"}),
            (1, 84, 8400),
            r"columns of shape \[1, 8, n\], output 'o' has \[1, 84",
        ),
        (HeadSpec("yolov8", {"columns": "o"}), (1, 8400, 8), r"\[1, 8, n\], output 'o' has \[1, 8400, 8\]"),
        (
            HeadSpec("yolox", {"rows": "o"}),
            (1, 3549, 9),
            r"rows of shape \[1, 8400, 9\], output 'o' has \[1, 3549, 9\]",
        ),
        (HeadSpec("yolox", {"rows": "o"}), (1, 8400, 85), r"\[1, 8400, 9\], output 'o' has \[1, 8400, 85\]"),
        (
            HeadSpec("yolox", {"rows": "o"}, {"strides": []}),
            (1, 8400, 9),
            r"expected option strides to be a list of integers from 1 to 1024, got \[\]",
        ),
        (
            HeadSpec("yolox", {"rows": "o"}, {"strides": [8, 1.5]}),
            (1, 8400, 9),
            r"expected option strides to be a list of integers .*, got \[8, 1.5\]",
        ),
        (
            HeadSpec("end_to_end", {"rows": "o"}),
            (1, 300, 7),
            r"rows of shape \[1, n, 6\], output 'o' has \[1, 300, 7\]",
        ),
        (
            HeadSpec("yolov8", {"columns": "o"}, {"box_unit": "m"}),
            (1, 8, 8400),
            "one of px, relative, got 'm'",
        ),
        (
            HeadSpec("yolov8", {"boxes": "o"}),
            (1, 8, 8400),
            "needs head.outputs.columns, the bundle names boxes",
        ),
    ],
)
def test_a_graph_of_another_shape_is_refused(spec, shape, message) -> None:
    with pytest.raises(HeadError, match=message):
        make_head(spec, INPUT, specs_of(o=shape), N_LABELS)


CASES = {
    "yolov5": ("rows", (1, 60, 9)),
    "yolov8": ("columns", (1, 8, 60)),
    "yolox": ("rows", (1, 252, 9)),
    "end_to_end": ("rows", (1, 60, 6)),
}


@pytest.mark.parametrize("head", CASES)
def test_an_empty_scene_is_no_error_and_has_a_highest_score(head: str) -> None:
    role, shape = CASES[head]
    decoder = make_head(HeadSpec(head, {role: "o"}), SMALL, specs_of(o=shape), N_LABELS)
    outputs = {"o": np.full(shape, 0.25, np.float32)}
    assert decoder.decode(outputs, Thresholds()).xyxy_model.shape == (0, 4)
    expected = 0.25 * 0.25 if head in ("yolov5", "yolox") else 0.25
    assert decoder.highest_score(outputs) == pytest.approx(expected)


@pytest.mark.parametrize("head", CASES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_an_error(head: str, value: float) -> None:
    role, shape = CASES[head]
    decoder = make_head(HeadSpec(head, {role: "o"}), SMALL, specs_of(o=shape), N_LABELS)
    outputs = {"o": np.zeros(shape, np.float32)}
    outputs["o"][0, 3, 5] = value
    with pytest.raises(HeadError, match=r"1 of .* output 'o' are not finite"):
        decoder.decode(outputs, Thresholds())


@pytest.mark.parametrize("head", CASES)
def test_every_threshold_is_safe_and_half_precision_is_read(head: str) -> None:
    role, shape = CASES[head]
    decoder = make_head(HeadSpec(head, {role: "o"}), SMALL, specs_of(o=shape), N_LABELS)
    outputs = {"o": np.random.default_rng(0).random(shape).astype(np.float16)}
    if head == "end_to_end":
        outputs["o"][..., 5] = 1
    counts = [len(decoder.decode(outputs, Thresholds(t, 1.0, 1000)).scores) for t in (0.0, 0.3, 0.8, 1.0)]
    assert counts == sorted(counts, reverse=True) and counts[0] == max(shape[1:]) > counts[2]
    found = decoder.decode(outputs, Thresholds(0.3, 0.5, 1000))
    assert found.scores.dtype == found.xyxy_model.dtype == np.float32 and found.class_ids.dtype == np.int32
    assert (np.diff(found.scores) <= 0).all()


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 5))
def test_the_highest_score_of_rows_is_that_of_all_of_them(seed: int, n: int, n_classes: int) -> None:
    rows = np.random.default_rng(seed).random((1, n, 5 + n_classes)).astype(np.float32)
    head = make_head(HeadSpec("yolov5", {"rows": "o"}), SMALL, specs_of(o=rows.shape), n_classes)
    expected = (rows[0, :, 4:5] * rows[0, :, 5:]).max()
    assert head.highest_score({"o": rows}) == pytest.approx(float(expected))
