"""Heads: values that are not scores, padding rows, unlabelled classes, float16 and minus infinity."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from head_cases import INPUT, THRESHOLDS, specs_of

from edge_vision.core.model_spec import HeadSpec, Thresholds
from edge_vision.detect.heads import ModelBoxes, make_head
from edge_vision.detect.heads.decoding import grid_points
from edge_vision.detect.heads.ssd import ssd_mobilenet_v2_anchors
from edge_vision.errors import HeadError

N_LABELS = 3
BOX = (100.0, 100.0, 200.0, 200.0)
N_ANCHORS = len(ssd_mobilenet_v2_anchors(640, 640))
N_CELLS = len(grid_points(INPUT, (8, 16, 32, 64), 0.0))


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


# Head, options -> empty outputs, and where one score is.
SCORES = {
    "yolov8": ({}, {"columns": zeros(1, 7, 50)}, ("columns", (0, 5, 9))),
    "yolov8, rows": ({}, {"rows": zeros(1, 50, 7)}, ("rows", (0, 9, 5))),
    "yolov5": ({}, {"rows": zeros(1, 50, 8)}, ("rows", (0, 9, 4))),
    "yolox": ({"strides": [8, 16, 32, 64]}, {"rows": zeros(1, N_CELLS, 8)}, ("rows", (0, 9, 4))),
    "end_to_end": ({}, {"rows": zeros(1, 20, 6)}, ("rows", (0, 9, 4))),
    "detr_rows": ({}, {"rows": zeros(1, 20, 7)}, ("rows", (0, 9, 5))),
    "decoded": (
        {},
        {"boxes": zeros(1, 20, 4), "scores": zeros(1, 20), "classes": zeros(1, 20)},
        ("scores", (0, 9)),
    ),
    "nanodet": ({}, {"rows": zeros(1, N_CELLS, 35)}, ("rows", (0, 9, 1))),
    "centernet": (
        {},
        {"heatmap": zeros(1, 3, 160, 160), "sizes": zeros(1, 2, 160, 160), "offsets": zeros(1, 2, 160, 160)},
        ("heatmap", (0, 1, 9, 9)),
    ),
    "ssd": (
        {"score_activation": "none"},
        {"boxes": zeros(1, N_ANCHORS, 4), "scores": zeros(1, N_ANCHORS, 4)},
        ("scores", (0, 9, 2)),
    ),
}


def decode(
    name: str, options: dict, outputs: dict[str, np.ndarray], thresholds: Thresholds = THRESHOLDS
) -> ModelBoxes:
    spec = HeadSpec(name.partition(",")[0], {role: role for role in outputs}, options)
    head = make_head(spec, INPUT, specs_of(**{k: v.shape for k, v in outputs.items()}), N_LABELS)
    head.highest_score(outputs)
    return head.decode(outputs, thresholds)


@pytest.mark.parametrize("value", [-4.0, 640.0])
@pytest.mark.parametrize("name", SCORES)
def test_a_score_outside_0_to_1_is_an_error(name: str, value: float) -> None:
    options, outputs, (role, position) = SCORES[name]
    outputs = {key: array.copy() for key, array in outputs.items()}
    outputs[role][position] = 1.004  # As quantized graphs give.
    decode(name, options, outputs)
    outputs[role][position] = value
    with pytest.raises(HeadError, match=r"expects scores from 0 to 1.*logits.*score_activation"):
        decode(name, options, outputs)


@pytest.mark.parametrize("name, column", [("yolov5", 6), ("yolox", 6)])
def test_class_scores_of_likely_rows_are_checked(name: str, column: int) -> None:
    options, outputs, _ = SCORES[name]
    rows = outputs["rows"].copy()
    rows[0, 9, 4], rows[0, 9, column] = 0.9, 7.0
    with pytest.raises(HeadError, match="has 0 to 7: logits"):
        decode(name, options, {"rows": rows})


def test_a_classifier_without_softmax_is_an_error() -> None:
    head = make_head(
        HeadSpec("classifier", {"logits": "y"}, {"activation": "none"}), INPUT, specs_of(y=(1, 3)), 3
    )
    with pytest.raises(HeadError, match=r"from 0 to 1.*head\.options\.activation to softmax"):
        head.decode({"y": np.array([[8.0, -2.0, 1.0]], np.float32)})


def test_yolov8_rows_are_the_transposed_columns() -> None:
    values = np.random.default_rng(0).random((1, 7, 50), np.float32)
    values[0, :4] *= 100
    by_columns = decode("yolov8", {}, {"columns": values})
    by_rows = decode("yolov8", {}, {"rows": np.ascontiguousarray(values.transpose(0, 2, 1))})
    assert len(by_rows.scores) > 0
    np.testing.assert_array_equal(by_rows.xyxy_model, by_columns.xyxy_model)
    np.testing.assert_array_equal(by_rows.class_ids, by_columns.class_ids)


def listed(name: str, rows: list[tuple[float, float]]) -> dict[str, np.ndarray]:
    """Outputs of a head that reads a list of score and class, all with the same box."""
    scores, classes = (np.array([values], np.float32) for values in zip(*rows, strict=True))
    boxes = np.tile(np.array(BOX, np.float32), (1, len(rows), 1))
    if name == "end_to_end":
        return {"rows": np.concatenate((boxes, scores[..., None], classes[..., None]), axis=2)}
    return {"boxes": boxes, "scores": scores, "classes": classes}


@pytest.mark.parametrize("name", ["end_to_end", "decoded", "tflite_detection"])
@pytest.mark.parametrize(
    "row, unlabelled",
    [((0.8, -1), 0), ((-1.0, -1), 0), ((7.0, -1), 0), ((0.8, 3), 1), ((0.8, 1e12), 1)],
    ids=["padding", "padding with score -1", "padding with any score", "no label", "huge class"],
)
def test_padding_and_unlabelled_rows_do_not_affect_others(name, row, unlabelled) -> None:
    outputs = listed(name, [(0.9, 2), row, (0.7, 0)])
    specs = specs_of(**{key: value.shape for key, value in outputs.items()})
    head = make_head(HeadSpec(name, {role: role for role in outputs}), INPUT, specs, N_LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = head.decode(outputs, THRESHOLDS)
    assert found.class_ids.tolist() == [2, 0]
    assert head.unlabelled == unlabelled
    assert head.highest_score(outputs) == pytest.approx(0.9)


def test_a_padding_row_is_not_the_highest_score() -> None:
    for name in ("end_to_end", "decoded"):
        outputs = listed(name, [(0.99, -1), (0.4, 1)])
        specs = specs_of(**{key: value.shape for key, value in outputs.items()})
        head = make_head(HeadSpec(name, {role: role for role in outputs}), INPUT, specs, N_LABELS)
        assert head.highest_score(outputs) == pytest.approx(0.4)


def test_float16_outputs_do_not_overflow() -> None:
    """The sum of the coordinates exceeds 65504, the largest float16."""
    columns = np.full((1, 7, 8400), 300, np.float16)
    columns[0, 4:] = 0
    columns[0, 5, 7] = 0.9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = decode("yolov8", {}, {"columns": columns})
    assert found.class_ids.tolist() == [1]


@pytest.mark.parametrize("activation, extra", [("sigmoid", 0), ("softmax", 1)])
def test_minus_infinity_is_a_legal_logit_of_detr(activation: str, extra: int) -> None:
    """Masked classes and queries; nothing else may be infinite."""
    logits = np.full((1, 10, N_LABELS + extra), -np.inf, np.float32)
    logits[0, 4, 1] = 5.0
    outputs = {"logits": logits, "boxes": np.full((1, 10, 4), 0.25, np.float32)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = decode("detr", {"score_activation": activation}, outputs)
    assert found.class_ids.tolist() == [1] and found.scores[0] > 0.99
    for role, value in (("logits", np.inf), ("logits", np.nan), ("boxes", -np.inf)):
        bad = {key: array.copy() for key, array in outputs.items()}
        bad[role][0, 0, 0] = value
        with pytest.raises(HeadError, match=r"1 of .* are not finite"):
            decode("detr", {"score_activation": activation}, bad)
