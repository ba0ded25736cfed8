"""The heads against plain re-implementations, and their refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_nms import naive

from edge_vision.backends.base import TensorSpec
from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.detect.heads import HEADS, make_head
from edge_vision.detect.heads.ssd import ssd_mobilenet_v2_anchors
from edge_vision.errors import HeadError

INPUT = InputSpec("images", 300, 300)
SSD_OUTPUTS = (TensorSpec("b", (1, 1917, 4), "float32"), TensorSpec("s", (1, None, 91), "float32"))
SSD_SPEC = HeadSpec("ssd", {"boxes": "b", "scores": "s"}, {"scale_factors": [10, 10, 5, 5]})


def plain_anchors(size):
    """One anchor at a time, as the training code lays them out: (n, 4) relative y1 x1 y2 x2."""
    cells = [math.ceil(size / 16)]
    for _ in range(5):
        cells.append(math.ceil(cells[-1] / 2))
    scales = [0.2 + 0.75 * i / 5 for i in range(6)] + [1.0]
    out = []
    for level, n in enumerate(cells):
        kinds = [(scales[level], a) for a in (1.0, 2.0, 0.5, 3.0, 0.3333)]
        kinds.append((math.sqrt(scales[level] * scales[level + 1]), 1.0))
        if level == 0:
            kinds = [(0.1, 1.0), (scales[0], 2.0), (scales[0], 0.5)]
        for y in range(n):
            for x in range(n):
                for scale, aspect in kinds:
                    h, w = scale / math.sqrt(aspect) * 300 / size, scale * math.sqrt(aspect) * 300 / size
                    cy, cx = (y + 0.5) / n, (x + 0.5) / n
                    out.append([cy - h / 2, cx - w / 2, cy + h / 2, cx + w / 2])
    return np.array(out)


def plain_ssd(codes, logits, thresholds, size=300):
    """Decode everything, threshold, suppress class by class."""
    boxes = plain_anchors(size)
    candidates = []
    for anchor, (y1, x1, y2, x2) in enumerate(boxes):
        h, w = y2 - y1, x2 - x1
        cy, cx = codes[anchor, 0] / 10 * h + y1 + h / 2, codes[anchor, 1] / 10 * w + x1 + w / 2
        bh, bw = math.exp(codes[anchor, 2] / 5) * h, math.exp(codes[anchor, 3] / 5) * w
        xyxy = np.array([cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2]) * size
        for column in np.flatnonzero(
            1 / (1 + np.exp(-logits[anchor, 1:].astype(np.float64))) >= thresholds.score_threshold
        ):
            candidates.append((xyxy, 1 / (1 + math.exp(-logits[anchor, column + 1])), column))
    xyxy, scores, ids = (np.array(part) for part in zip(*candidates, strict=True))
    keep = naive(xyxy, scores, ids, thresholds.iou_threshold, thresholds.max_detections)
    return xyxy[keep], scores[keep], ids[keep]


def random_outputs(seed, hot=120):
    rng = np.random.default_rng(seed)
    codes = rng.normal(0, 2, (1, 1917, 4)).astype(np.float32)
    logits = rng.normal(-7, 1, (1, 1917, 91)).astype(np.float32)
    logits[0, :, 0] = 9.0  # The background never is an object, however sure.
    logits[0, rng.integers(0, 1917, hot), rng.integers(1, 4, hot)] = rng.normal(1, 2, hot)
    return {"b": codes, "s": logits}


@pytest.mark.parametrize("size", [300, 320, 512])
def test_anchors_equal_the_plain_ones(size):
    ours = ssd_mobilenet_v2_anchors(size, size).astype(np.float64)
    corners = np.concatenate((ours[:, :2] - ours[:, 2:] / 2, ours[:, :2] + ours[:, 2:] / 2), axis=1)
    np.testing.assert_allclose(corners / size, plain_anchors(size), atol=1e-6)


def test_there_are_1917_anchors_at_300_px():
    assert ssd_mobilenet_v2_anchors(300, 300).shape == (1917, 4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("thresholds", [Thresholds(), Thresholds(0.3, 0.6, 100), Thresholds(0.2, 0.2, 5)])
def test_ssd_equals_the_plain_decoding(seed, thresholds):
    outputs = random_outputs(seed)
    found = make_head(SSD_SPEC, INPUT, SSD_OUTPUTS, 90).decode(outputs, thresholds)
    xyxy, scores, ids = plain_ssd(outputs["b"][0], outputs["s"][0], thresholds)
    assert found.class_ids.tolist() == ids.tolist()
    assert found.class_ids.dtype == np.int32 and found.scores.dtype == found.xyxy_model.dtype == np.float32
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    np.testing.assert_allclose(found.xyxy_model, xyxy, atol=1e-2)
    assert (np.diff(found.scores) <= 0).all()


def test_one_anchor_may_be_of_two_classes():
    outputs = {"b": np.zeros((1, 1917, 4), np.float32), "s": np.full((1, 1917, 91), -9, np.float32)}
    outputs["s"][0, 5, [3, 7]] = 2.0, 1.0
    found = make_head(SSD_SPEC, INPUT, SSD_OUTPUTS, 90).decode(outputs, Thresholds())
    assert found.class_ids.tolist() == [2, 6]
    np.testing.assert_array_equal(found.xyxy_model[0], found.xyxy_model[1])


def test_thresholds_act_at_once_and_every_value_is_safe():
    head, outputs = make_head(SSD_SPEC, INPUT, SSD_OUTPUTS, 90), random_outputs(1)
    counts = [
        len(head.decode(outputs, Thresholds(score, 0.5, 10**6)).scores) for score in (0.2, 0.5, 0.9, 1.0)
    ]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[2] and counts[3] == 0
    assert len(head.decode(outputs, Thresholds(0.0, 0.5, 100)).scores) == 100


def test_scores_without_background_and_activation():
    spec = HeadSpec("ssd", {"boxes": "b", "scores": "s"}, {"background": False, "score_activation": "none"})
    outputs = {"b": np.zeros((1, 1917, 4), np.float32), "s": np.zeros((1, 1917, 91), np.float32)}
    outputs["s"][0, 9, 0] = 0.75
    found = make_head(spec, INPUT, SSD_OUTPUTS, 91).decode(outputs, Thresholds())
    assert found.class_ids.tolist() == [0] and found.scores.tolist() == [0.75]


def test_half_precision_outputs_are_read():
    outputs = {name: value.astype(np.float16) for name, value in random_outputs(2).items()}
    found = make_head(SSD_SPEC, INPUT, SSD_OUTPUTS, 90).decode(outputs, Thresholds())
    assert len(found.scores) and found.scores.dtype == np.float32


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["b", "s"])
def test_numbers_that_are_not_finite_are_an_error(name, value):
    outputs = random_outputs(0)
    outputs[name][0, 1900, 2] = value
    with pytest.raises(HeadError, match=f"1 of .* output '{name}' are not finite"):
        make_head(SSD_SPEC, INPUT, SSD_OUTPUTS, 90).decode(outputs, Thresholds())


def test_huge_codes_stay_finite():
    outputs = random_outputs(0)
    outputs["b"][:] = 1e6
    assert np.isfinite(
        make_head(SSD_SPEC, INPUT, SSD_OUTPUTS, 90).decode(outputs, Thresholds()).xyxy_model
    ).all()


@pytest.mark.parametrize(
    "spec, n_labels, input_spec, message",
    [
        (HeadSpec("yolo"), 90, INPUT, "one of ssd, .*, classifier, got 'yolo'"),
        (HeadSpec("ssd", {"boxes": "b"}), 90, INPUT, "head.outputs.scores, the bundle names boxes"),
        (HeadSpec("ssd", {"boxes": "x", "scores": "s"}), 90, INPUT, "output 'x', the graph has b, s"),
        (SSD_SPEC, 80, INPUT, r"shape \[1, 1917, 81\], output 's' has \[1, None, 91\]"),
        (SSD_SPEC, 90, InputSpec("images", 512, 512), r"output 'b' has \[1, 1917, 4\]"),
        (HeadSpec("ssd", SSD_SPEC.outputs, {"anchors": 1}), 90, INPUT, "got anchors"),
        (
            HeadSpec("ssd", SSD_SPEC.outputs, {"anchor_layout": "x"}),
            90,
            INPUT,
            "one of ssd_mobilenet_v2, got 'x'",
        ),
        (
            HeadSpec("ssd", SSD_SPEC.outputs, {"scale_factors": [1, 2, 3]}),
            90,
            INPUT,
            "scale_factors to be four positive numbers",
        ),
        (HeadSpec("ssd", SSD_SPEC.outputs, {"score_activation": 3}), 90, INPUT, "sigmoid, none, got 3"),
    ],
)
def test_a_head_that_does_not_fit_says_how(spec, n_labels, input_spec, message):
    with pytest.raises(HeadError, match=message):
        make_head(spec, input_spec, SSD_OUTPUTS, n_labels)


@pytest.mark.parametrize(
    "outputs, message", [({"b": 1}, "from the runtime"), ({"s": 0}, r"has \[1, 1917, 90\]")]
)
def test_outputs_that_change_are_an_error(outputs, message):
    good = random_outputs(0)
    given = {"b": good["b"]} if "b" in outputs else {"b": good["b"], "s": good["s"][:, :, :-1]}
    with pytest.raises(HeadError, match=message):
        make_head(SSD_SPEC, INPUT, SSD_OUTPUTS, 90).decode(given, Thresholds())


def test_classifier_head():
    outputs = (TensorSpec("y", (1, 4), "float32"),)
    logits = np.array([[1000.0, 999.0, -1000.0, 0.0]], np.float32)
    scores = make_head(HeadSpec("classifier", {"logits": "y"}), INPUT, outputs, 4).decode({"y": logits})
    np.testing.assert_allclose(scores, [1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1)), 0, 0], atol=1e-6)
    spec = HeadSpec("classifier", {"logits": "y"}, {"activation": "none"})
    given = np.array([[0.0, 0.25, 0.75, 1.0]], np.float32)
    np.testing.assert_array_equal(make_head(spec, INPUT, outputs, 4).decode({"y": given}), given[0])
    with pytest.raises(HeadError, match=r"shape \[n, 5\], output 'y' has \[1, 4\]"):
        make_head(HeadSpec("classifier", {"logits": "y"}), INPUT, outputs, 5)


def test_the_registry_names_a_task_for_every_head():
    assert {head.task for head in HEADS.values()} == {"detect", "classify"}
