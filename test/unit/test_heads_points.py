"""The heads of NanoDet, CenterNet and CenterFace against boxes encoded here by the published definitions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from head_cases import (
    INPUT,
    KNOWN,
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

from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.detect.heads import make_head
from edge_vision.errors import HeadError

COPY = Known((44.0, 70.0, 149.0, 310.0), 0.61, 2)


# --- NanoDet ---


def points_of(
    width: int, height: int, strides: tuple[int, ...], offset: float
) -> list[tuple[float, float, int]]:
    """(x, y, stride) of every cell in the order of the output, one at a time."""
    return [
        ((x + offset) * s, (y + offset) * s, s)
        for s in strides
        for y in range(math.ceil(height / s))
        for x in range(math.ceil(width / s))
    ]


def distribution(distance: float, bins: int) -> np.ndarray:
    """Logits whose softmax has its mass on the two whole numbers around a distance, as DFL trains it."""
    low = min(int(distance), bins - 2)
    share = np.full(bins, 1e-9)
    share[low : low + 2] += 1 - (distance - low), distance - low
    return np.log(np.maximum(share, 1e-9))


def nanodet_rows(known: tuple[Known, ...], strides: tuple[int, ...], offset: float, bins: int) -> np.ndarray:
    points = points_of(640, 640, strides, offset)
    rows = np.zeros((1, len(points), N_LABELS + 4 * bins), np.float32)
    for one in known:
        x1, y1, x2, y2 = in_model(one.xyxy)
        for place, (px, py, s) in enumerate(points):
            sides = [(px - x1) / s, (py - y1) / s, (x2 - px) / s, (y2 - py) / s]
            if min(sides) >= 0 and max(sides) <= bins - 1 and not rows[0, place, :N_LABELS].any():
                break
        else:
            raise AssertionError(f"no point can hold {one}")
        rows[0, place, one.class_id] = one.score
        rows[0, place, N_LABELS:] = np.concatenate([distribution(d, bins) for d in sides])
    return rows


@pytest.mark.parametrize(
    "options, strides, offset, bins",
    [
        ({}, (8, 16, 32, 64), 0.0, 8),
        ({"strides": [8, 16, 32], "cell_offset": 0.5, "reg_max": 10}, (8, 16, 32), 0.5, 11),
    ],
    ids=["NanoDet-Plus", "the first NanoDet"],
)
def test_nanodet_decodes_its_distributions(tmp_path: Path, options, strides, offset, bins) -> None:
    graph = constant_graph(tmp_path / "n.onnx", {"output": nanodet_rows(KNOWN, strides, offset, bins)})
    assert_found(run_graph(graph, HeadSpec("nanodet", {"rows": "output"}, options)))
    rows = nanodet_rows((*KNOWN, COPY), strides, offset, bins)
    graph = constant_graph(tmp_path / "c.onnx", {"output": rows})
    assert_found(run_graph(graph, HeadSpec("nanodet", {"rows": "output"}, options)))


def test_nanodet_with_the_sigmoid_left_out(tmp_path: Path) -> None:
    rows = nanodet_rows(KNOWN, (8, 16, 32, 64), 0.0, 8).astype(np.float64)
    scores = np.clip(rows[..., :N_LABELS], 1e-6, 1 - 1e-6)
    rows[..., :N_LABELS] = np.log(scores / (1 - scores))
    graph = constant_graph(tmp_path / "n.onnx", {"output": rows.astype(np.float32)})
    assert_found(run_graph(graph, HeadSpec("nanodet", {"rows": "output"}, {"score_activation": "sigmoid"})))


SMALL = InputSpec("images", 128, 96)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 255), st.lists(st.floats(0, 7), min_size=4, max_size=4))
def test_nanodet_decodes_encoded_boxes_at_any_point(place, sides) -> None:
    points = points_of(128, 96, (8, 16, 32, 64), 0.0)
    rows = np.zeros((1, len(points), 1 + 32), np.float32)
    rows[0, place, 0] = 0.9
    rows[0, place, 1:] = np.concatenate([distribution(side, 8) for side in sides])
    head = make_head(HeadSpec("nanodet", {"rows": "o"}), SMALL, specs_of(o=rows.shape), 1)
    found = head.decode({"o": rows}, Thresholds())
    x, y, s = points[place]
    expected = [x - sides[0] * s, y - sides[1] * s, x + sides[2] * s, y + sides[3] * s]
    np.testing.assert_allclose(found.xyxy_model, [expected], atol=1e-2)


# --- CenterNet and CenterFace ---


def centernet_maps(known: tuple[Known, ...]) -> dict[str, np.ndarray]:
    """`Objects as Points`: a Gaussian around each centre, size in cells, offset from the cell's corner."""
    hm, wh, reg = np.zeros((1, N_LABELS, 160, 160)), np.zeros((1, 2, 160, 160)), np.zeros((1, 2, 160, 160))
    y, x = np.mgrid[:160, :160]
    for one in known:
        cx, cy, w, h = centres_of(in_model(one.xyxy)) / 4
        column, row = int(cx), int(cy)
        splat = one.score * np.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * 2.0**2))
        hm[0, one.class_id] = np.maximum(hm[0, one.class_id], splat)
        wh[0, :, row, column] = w, h
        reg[0, :, row, column] = cx - column, cy - row
    return {name: value.astype(np.float32) for name, value in (("hm", hm), ("wh", wh), ("reg", reg))}


CENTERNET = HeadSpec("centernet", {"heatmap": "hm", "sizes": "wh", "offsets": "reg"})
# The centres of the two that share a place fall into one cell, which has one size: here one of them is left
# out.
APART = tuple(one for one in KNOWN if one.class_id != 1)


def test_centernet_finds_the_peaks_and_not_their_slopes(tmp_path: Path) -> None:
    maps = centernet_maps(APART)
    assert (maps["hm"] >= 0.5).sum() > 4 * len(APART), "the slopes are to be above the threshold"
    assert_found(run_graph(constant_graph(tmp_path / "c.onnx", maps), CENTERNET), APART)


def test_centernet_with_the_sigmoid_left_out(tmp_path: Path) -> None:
    maps = centernet_maps(APART)
    heat = np.clip(maps["hm"].astype(np.float64), 1e-6, 1 - 1e-6)
    maps["hm"] = np.log(heat / (1 - heat)).astype(np.float32)
    spec = HeadSpec("centernet", CENTERNET.outputs, {"score_activation": "sigmoid"})
    assert_found(run_graph(constant_graph(tmp_path / "c.onnx", maps), spec), APART)


def test_a_peak_on_the_rim_and_in_the_corner() -> None:
    maps = {
        "hm": np.zeros((1, 1, 24, 32), np.float32),
        "wh": np.full((1, 2, 24, 32), 2, np.float32),
        "reg": np.zeros((1, 2, 24, 32), np.float32),
    }
    maps["hm"][0, 0, [0, 0, 23, 12], [0, 31, 31, 0]] = 0.9, 0.8, 0.7, 0.6
    maps["hm"][0, 0, 1, 1] = 0.85
    head = make_head(CENTERNET, SMALL, specs_of(**{k: v.shape for k, v in maps.items()}), 1)
    found = head.decode(maps, Thresholds())
    np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.7, 0.6])
    np.testing.assert_allclose(found.xyxy_model[0], [-4, -4, 4, 4])
    np.testing.assert_allclose(found.xyxy_model[2], [31 * 4 - 4, 23 * 4 - 4, 31 * 4 + 4, 23 * 4 + 4])


def centerface_maps(known: tuple[Known, ...]) -> dict[str, np.ndarray]:
    """CenterFace: channels y, x; logarithm of the size in cells; offset from the cell's middle."""
    hm, size, off = np.zeros((1, 1, 160, 160)), np.zeros((1, 2, 160, 160)), np.zeros((1, 2, 160, 160))
    for one in known:
        cx, cy, w, h = centres_of(in_model(one.xyxy)) / 4
        column, row = int(cx), int(cy)
        for dx, factor in ((0, 1.0), (1, 0.9)):  # A neighbour that says the same, less sure.
            hm[0, 0, row, column + dx] = one.score * factor
            size[0, :, row, column + dx] = math.log(h), math.log(w)
            off[0, :, row, column + dx] = cy - row - 0.5, cx - column - dx - 0.5
    return {name: value.astype(np.float32) for name, value in (("hm", hm), ("wh", size), ("reg", off))}


def test_centerface_makes_one_of_neighbours(tmp_path: Path) -> None:
    faces = tuple(Known(one.xyxy, one.score, 0) for one in APART)
    spec = HeadSpec("centernet", CENTERNET.outputs, {"variant": "centerface"})
    graph = constant_graph(tmp_path / "f.onnx", centerface_maps(faces))
    assert_found(run_graph(graph, spec, n_labels=1), faces)
    many = run_graph(graph, spec, Thresholds(0.5, 1.0, 100), n_labels=1)
    assert len(many) > len(faces)


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(["centernet", "centerface"]),
    st.floats(0, 127),
    st.floats(0, 95),
    st.floats(2, 200),
    st.floats(2, 200),
)
def test_center_heads_decode_encoded_boxes_anywhere(variant, cx, cy, width, height) -> None:
    maps = {"hm": np.zeros((1, 1, 24, 32), np.float32)}
    maps |= {name: np.zeros((1, 2, 24, 32), np.float32) for name in ("wh", "reg")}
    column, row = int(cx / 4), int(cy / 4)
    maps["hm"][0, 0, row, column] = 0.9
    if variant == "centernet":
        maps["wh"][0, :, row, column] = width / 4, height / 4
        maps["reg"][0, :, row, column] = cx / 4 - column, cy / 4 - row
    else:
        maps["wh"][0, :, row, column] = math.log(height / 4), math.log(width / 4)
        maps["reg"][0, :, row, column] = cy / 4 - row - 0.5, cx / 4 - column - 0.5
    spec = HeadSpec("centernet", CENTERNET.outputs, {"variant": variant})
    head = make_head(spec, SMALL, specs_of(**{k: v.shape for k, v in maps.items()}), 1)
    expected = [cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2]
    np.testing.assert_allclose(head.decode(maps, Thresholds()).xyxy_model, [expected], atol=1e-2)


# --- What does not fit ---

HEATMAP, PAIR = (1, N_LABELS, 160, 160), (1, 2, 160, 160)


@pytest.mark.parametrize(
    "spec, shapes, message",
    [
        (
            HeadSpec("nanodet", {"rows": "o"}),
            {"o": (1, 8500, 112)},
            r"rows of shape \[1, 8500, 36\].* has \[1, 8500, 112\]",
        ),
        (
            HeadSpec("nanodet", {"rows": "o"}),
            {"o": (1, 8400, 36)},
            r"rows of shape \[1, 8500, 36\].* has \[1, 8400, 36\]",
        ),
        (
            HeadSpec("nanodet", {"rows": "o"}, {"reg_max": 0}),
            {"o": (1, 8500, 36)},
            "expected option reg_max to be an integer from 1 to 1024, got 0",
        ),
        (
            HeadSpec("nanodet", {"rows": "o"}, {"cell_offset": "x"}),
            {"o": (1, 8500, 36)},
            "expected option cell_offset to be a number from 0 to 1, got 'x'",
        ),
        (
            CENTERNET,
            {"hm": (1, 80, 160, 160), "wh": PAIR, "reg": PAIR},
            r"heatmap of shape \[1, 4, 160, 160\].* has \[1, 80,",
        ),
        (
            CENTERNET,
            {"hm": (1, 4, 80, 80), "wh": PAIR, "reg": PAIR},
            r"heatmap of shape \[1, 4, 160, 160\].* has \[1, 4, 80, 80\]",
        ),
        (
            CENTERNET,
            {"hm": HEATMAP, "wh": (1, 4, 160, 160), "reg": PAIR},
            r"sizes of shape \[1, 2, 160, 160\].* has \[1, 4,",
        ),
        (CENTERNET, {"hm": HEATMAP, "wh": PAIR}, "reads its offsets from output 'reg', the graph has hm, wh"),
        (
            HeadSpec("centernet", CENTERNET.outputs, {"variant": "x"}),
            {"hm": HEATMAP, "wh": PAIR, "reg": PAIR},
            "one of centernet, centerface, got 'x'",
        ),
        (
            HeadSpec("centernet", CENTERNET.outputs, {"stride": 8}),
            {"hm": HEATMAP, "wh": PAIR, "reg": PAIR},
            r"heatmap of shape \[1, 4, 80, 80\].* has \[1, 4, 160, 160\]",
        ),
    ],
)
def test_a_graph_of_another_shape_is_refused(spec, shapes, message) -> None:
    with pytest.raises(HeadError, match=message):
        make_head(spec, INPUT, specs_of(**shapes), N_LABELS)


def test_nothing_there_broken_numbers_and_the_highest_score() -> None:
    for spec, outputs in (
        (HeadSpec("nanodet", {"rows": "o"}), {"o": np.full((1, 256, 36), 0.25, np.float32)}),
        (
            CENTERNET,
            {k: np.full((1, c, 24, 32), 0.25, np.float32) for k, c in (("hm", 4), ("wh", 2), ("reg", 2))},
        ),
    ):
        head = make_head(spec, SMALL, specs_of(**{k: v.shape for k, v in outputs.items()}), N_LABELS)
        assert head.decode(outputs, THRESHOLDS).xyxy_model.shape == (0, 4)
        assert head.highest_score(outputs) == pytest.approx(0.25)
        assert len(head.decode(outputs, Thresholds(0.0, 1.0, 7)).scores) == 7
        outputs[next(iter(outputs))][0, 1, 2] = np.nan
        with pytest.raises(HeadError, match="are not finite"):
            head.decode(outputs, THRESHOLDS)
