"""The heads of graphs that suppress nothing: DETR, RT-DETR, finished detections, TFLite post-processing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from head_cases import (
    ALL_KNOWN,
    INPUT,
    N_LABELS,
    THRESHOLDS,
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
from onnx import TensorProto, helper, numpy_helper

from edge_vision.backends.base import TensorSpec
from edge_vision.core.model_spec import HeadSpec, Thresholds
from edge_vision.detect.heads import make_head
from edge_vision.errors import HeadError


def queries(known: tuple[Known, ...], n: int, seed: int = 3) -> tuple[np.ndarray, dict[int, Known]]:
    """(1, n, 4) relative centres and sizes, and which query holds which object; the others hold noise."""
    rng = np.random.default_rng(seed)
    boxes = rng.random((1, n, 4))
    places = dict(zip(rng.permutation(n).tolist(), known, strict=False))
    for place, one in places.items():
        boxes[0, place] = centres_of(in_model(one.xyxy)) / 640
    return boxes.astype(np.float32), places


def test_detr_softmax_with_no_object_last(tmp_path: Path) -> None:
    """Probabilities p become logits ln p: softmax gives p back."""
    boxes, places = queries(ALL_KNOWN, 100)
    share = np.full((1, 100, N_LABELS + 1), 0.01)
    share[..., -1] = 1 - 0.01 * N_LABELS
    for place, one in places.items():
        share[0, place] = (1 - one.score) / N_LABELS
        share[0, place, one.class_id] = one.score
    outputs = {"logits": np.log(share).astype(np.float32), "pred_boxes": boxes}
    graph = constant_graph(tmp_path / "detr.onnx", outputs)
    spec = HeadSpec("detr", {"logits": "logits", "boxes": "pred_boxes"}, {"score_activation": "softmax"})
    assert_found(run_graph(graph, spec), ALL_KNOWN)


def rtdetr_outputs() -> dict[str, np.ndarray]:
    boxes, places = queries(ALL_KNOWN, 300)
    score = np.full((1, 300, N_LABELS), 0.01)
    for place, one in places.items():
        score[0, place, one.class_id] = one.score
    return {"logits": np.log(score / (1 - score)).astype(np.float32), "pred_boxes": boxes}


def test_rtdetr_sigmoid(tmp_path: Path) -> None:
    graph = constant_graph(tmp_path / "rtdetr.onnx", rtdetr_outputs())
    spec = HeadSpec("detr", {"logits": "logits", "boxes": "pred_boxes"})
    assert_found(run_graph(graph, spec), ALL_KNOWN)
    assert_found(
        run_graph(graph, spec, Thresholds(0.5, 0.5, 2)), tuple(sorted(ALL_KNOWN, key=lambda o: -o.score)[:2])
    )


def test_rtdetr_as_ultralytics_exports_it(tmp_path: Path) -> None:
    """RTDETRDecoder in evaluation: boxes and sigmoids side by side."""
    outputs = rtdetr_outputs()
    scores = 1 / (1 + np.exp(-outputs["logits"]))
    rows = np.concatenate([outputs["pred_boxes"], scores], axis=2).astype(np.float32)
    graph = constant_graph(tmp_path / "u.onnx", {"output0": rows})
    assert_found(run_graph(graph, HeadSpec("detr_rows", {"rows": "output0"})), ALL_KNOWN)


def rtdetr_export(path: Path, n_top: int = 10) -> Path:
    """RT-DETR's own deployed post-processor in operators: sigmoid, the best ones, boxes in pixels.

    `rtdetr_postprocessor.py`: index % classes is the label, index // classes the query.
    """
    weights = [numpy_helper.from_array(v, k) for k, v in rtdetr_outputs().items()]
    for name, value in {
        "flat": [1, -1],
        "k": [n_top],
        "classes": [N_LABELS],
        "axis2": [2],
        "four": [1, 1, 4],
        "halves": [2, 2],
    }.items():
        weights.append(numpy_helper.from_array(np.array(value, np.int64), name))
    weights.append(numpy_helper.from_array(np.array(0.5, np.float32), "half"))
    weights.append(numpy_helper.from_array(np.array([[[640, 640, 640, 640]]], np.float32), "size"))
    node = helper.make_node
    nodes = [
        node("Sigmoid", ["logits"], ["p"]),
        node("Reshape", ["p", "flat"], ["flat_p"]),
        node("TopK", ["flat_p", "k"], ["scores", "index"], axis=1),
        node("Mod", ["index", "classes"], ["labels"]),
        node("Div", ["index", "classes"], ["query"]),
        node("Unsqueeze", ["query", "axis2"], ["query3"]),
        node("Expand", ["query3", "four"], ["query4"]),
        node("Split", ["pred_boxes", "halves"], ["centre", "extent"], axis=2),
        node("Mul", ["extent", "half"], ["reach"]),
        node("Sub", ["centre", "reach"], ["lt"]),
        node("Add", ["centre", "reach"], ["rb"]),
        node("Concat", ["lt", "rb"], ["relative"], axis=2),
        node("Mul", ["relative", "size"], ["in_px"]),
        node("GatherElements", ["in_px", "query4"], ["boxes"], axis=1),
    ]
    infos = [
        helper.make_tensor_value_info("labels", TensorProto.INT64, [1, n_top]),
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, n_top, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, n_top]),
    ]
    picture = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 640, 640])
    graph = helper.make_graph(nodes, "rtdetr", [picture], infos, initializer=weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


DECODED = HeadSpec("decoded", {"classes": "labels", "boxes": "boxes", "scores": "scores"})


def test_rtdetr_as_its_export_decodes_it(tmp_path: Path) -> None:
    assert_found(run_graph(rtdetr_export(tmp_path / "r.onnx"), DECODED), ALL_KNOWN)


def tflite_outputs(known: tuple[Known, ...], n: int, first_class: int = 0) -> dict[str, np.ndarray]:
    """detection_postprocess.cc: ymin, xmin, ymax, xmax relative; rows after the count hold anything."""
    boxes, classes, scores = np.full((1, n, 4), 0.5), np.full((1, n), 77.0), np.full((1, n), 0.99)
    for i, one in enumerate(known):
        x1, y1, x2, y2 = in_model(one.xyxy) / 640
        boxes[0, i], classes[0, i], scores[0, i] = (y1, x1, y2, x2), one.class_id + first_class, one.score
    values = {"boxes": boxes, "classes": classes, "scores": scores, "count": np.array([len(known)])}
    return {name: value.astype(np.float32) for name, value in values.items()}


ROLES = {name: name for name in ("boxes", "classes", "scores", "count")}


def test_tflite_detection_stops_at_its_count(tmp_path: Path) -> None:
    graph = constant_graph(tmp_path / "t.onnx", tflite_outputs(ALL_KNOWN, 20))
    assert_found(run_graph(graph, HeadSpec("tflite_detection", ROLES)), ALL_KNOWN)


def test_tf_object_detection_counts_classes_from_one(tmp_path: Path) -> None:
    graph = constant_graph(tmp_path / "t.onnx", tflite_outputs(ALL_KNOWN, 20, first_class=1))
    options = {"box_order": "yxyx", "box_unit": "relative", "first_class": 1}
    assert_found(run_graph(graph, HeadSpec("decoded", ROLES, options)), ALL_KNOWN)


def test_without_a_count_every_row_counts(tmp_path: Path) -> None:
    outputs = tflite_outputs(ALL_KNOWN, len(ALL_KNOWN))
    del outputs["count"]
    roles = {name: name for name in ("boxes", "classes", "scores")}
    graph = constant_graph(tmp_path / "t.onnx", outputs)
    assert_found(run_graph(graph, HeadSpec("tflite_detection", roles)), ALL_KNOWN)


def test_a_count_beyond_the_rows_and_below_zero() -> None:
    outputs = tflite_outputs(ALL_KNOWN, len(ALL_KNOWN))
    head = make_head(HeadSpec("tflite_detection", ROLES), INPUT, specs_of(**shapes(outputs)), N_LABELS)
    for count, n in ((1000, len(ALL_KNOWN)), (-3, 0), (0, 0)):
        outputs["count"][0] = count
        assert len(head.decode(outputs, THRESHOLDS).scores) == n
    assert head.highest_score(outputs) is None


def shapes(outputs: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in outputs.items()}


@settings(deadline=None, max_examples=100)
@given(
    st.floats(0, 639),
    st.floats(0, 639),
    st.floats(1, 640),
    st.floats(1, 640),
    st.sampled_from(["sigmoid", "softmax"]),
)
def test_detr_decodes_encoded_boxes_anywhere(cx, cy, width, height, activation) -> None:
    boxes = np.array([[[cx, cy, width, height]]], np.float32) / 640
    logits = np.array([[[5.0, -5.0, -5.0]]], np.float32)
    spec = HeadSpec("detr", {"logits": "l", "boxes": "b"}, {"score_activation": activation})
    head = make_head(spec, INPUT, specs_of(l=(1, 1, 3), b=(1, 1, 4)), 3 - (activation == "softmax"))
    found = head.decode({"l": logits, "b": boxes}, Thresholds())
    expected = [cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2]
    np.testing.assert_allclose(found.xyxy_model, [expected], atol=1e-2)
    assert found.class_ids.tolist() == [0]


DETR = HeadSpec("detr", {"logits": "l", "boxes": "b"})
ROWS = {"boxes": (1, 20, 4), "classes": (1, 20), "scores": (1, 20), "count": (1,)}


@pytest.mark.parametrize(
    "spec, given_shapes, message",
    [
        (
            HeadSpec("detr_rows", {"rows": "o"}),
            {"o": (1, 300, 84)},
            r"rows of shape \[1, queries, 8\], output 'o' has \[1, 300, 84\]",
        ),
        (
            DETR,
            {"l": (1, 300, 80), "b": (1, 300, 4)},
            r"logits of shape \[1, queries, 4\], output 'l' has \[1, 300, 80\]",
        ),
        (
            DETR,
            {"l": (1, 300, 4), "b": (1, 300, 5)},
            r"boxes of shape \[1, queries, 4\], output 'b' has \[1, 300, 5\]",
        ),
        (
            HeadSpec("detr", DETR.outputs, {"score_activation": "softmax"}),
            {"l": (1, 100, 4), "b": (1, 100, 4)},
            r"\[1, queries, 5\], output 'l' has \[1, 100, 4\]",
        ),
        (
            HeadSpec("detr", DETR.outputs, {"score_activation": "none"}),
            {"l": (1, 100, 4), "b": (1, 100, 4)},
            "one of sigmoid, softmax, got 'none'",
        ),
        (
            HeadSpec("tflite_detection", ROLES),
            {**ROWS, "boxes": (1, 4, 20)},
            r"boxes of shape \[1, n, 4\], output 'boxes' has \[1, 4, 20\]",
        ),
        (
            HeadSpec("tflite_detection", ROLES),
            {**ROWS, "scores": (1, 20, 90)},
            r"scores of shape \[1, n\], output 'scores' has \[1, 20, 90\]",
        ),
        (
            HeadSpec("tflite_detection", ROLES),
            {**ROWS, "count": (1, 1)},
            r"count of shape \[1\], output 'count' has \[1, 1\]",
        ),
        (
            HeadSpec("decoded", ROLES, {"first_class": 2}),
            ROWS,
            "expected option first_class to be an integer from 0 to 1, got 2",
        ),
        (HeadSpec("decoded", ROLES, {"box_order": "xywh"}), ROWS, "one of xyxy, yxyx, got 'xywh'"),
        (
            HeadSpec("decoded", {"boxes": "boxes", "scores": "scores"}),
            ROWS,
            "needs head.outputs.classes, the bundle names boxes, scores",
        ),
    ],
)
def test_a_graph_of_another_shape_is_refused(spec, given_shapes, message) -> None:
    with pytest.raises(HeadError, match=message):
        make_head(spec, INPUT, specs_of(**given_shapes), N_LABELS)


def test_outputs_of_different_lengths_are_an_error() -> None:
    """A graph may leave its lengths open; then they are known after the first run."""
    free = (TensorSpec("l", (1, None, 4), "float32"), TensorSpec("b", (1, None, 4), "float32"))
    outputs = {"l": np.zeros((1, 5, 4), np.float32), "b": np.zeros((1, 4, 4), np.float32)}
    with pytest.raises(HeadError, match="logits"):
        make_head(DETR, INPUT, free, N_LABELS).decode(outputs, THRESHOLDS)
    good = tflite_outputs(ALL_KNOWN, 20)
    head = make_head(HeadSpec("tflite_detection", ROLES), INPUT, specs_of(**shapes(good)), N_LABELS)
    head_free = make_head(
        HeadSpec("tflite_detection", ROLES),
        INPUT,
        specs_of(boxes=(1, None, 4), classes=(1, None), scores=(1, None), count=(1,)),
        N_LABELS,
    )
    short = {**good, "classes": good["classes"][:, :3]}
    with pytest.raises(HeadError, match=r"classes of shape \[1, n\], output 'classes' has \[1, 3\]"):
        head_free.decode(short, THRESHOLDS)
    assert len(head.decode(good, THRESHOLDS).scores) == len(ALL_KNOWN)


def test_broken_numbers_are_an_error(tmp_path: Path) -> None:
    outputs = rtdetr_outputs()
    outputs["logits"][0, 7, 1] = np.nan
    graph = constant_graph(tmp_path / "r.onnx", outputs)
    with pytest.raises(HeadError, match="1 of 1200 values of output 'logits' are not finite"):
        run_graph(graph, HeadSpec("detr", {"logits": "logits", "boxes": "pred_boxes"}))


def test_highest_scores() -> None:
    outputs = rtdetr_outputs()
    spec = HeadSpec("detr", {"logits": "logits", "boxes": "pred_boxes"})
    head = make_head(spec, INPUT, specs_of(**shapes(outputs)), N_LABELS)
    assert head.highest_score(outputs) == pytest.approx(0.92, abs=1e-5)
