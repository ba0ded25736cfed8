"""Ranges of least error: on drawn distributions, a tiny graph, and the real classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import EFFICIENTNET, bundle_or_skip, video_frame
from onnx import TensorProto, helper, numpy_helper
from optimize_cases import SIDE_PX, vit_graph

from edge_vision.backends.selection.parity import sqnr_db
from edge_vision.core.preprocess import Preprocessor
from edge_vision.optimize.quantization import graph_session, ptq
from edge_vision.optimize.quantization.clipped_ranges import clipped_ranges
from edge_vision.optimize.quantization.input_moments import quantized_u8
from edge_vision.optimize.quantization.int8_recipe import Int8Recipe


def two_layers(values: int) -> object:
    """Layer -> "inner" -> layer -> "read", which the tail scales. The first layer passes its input on."""
    ones = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "ones")
    shape = (1, 1, 1, values)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "ones"], ["inner"], name="first"),
            helper.make_node("Conv", ["inner", "ones"], ["read"], name="second"),
            helper.make_node("Sigmoid", ["read"], ["out"], name="tail"),
        ],
        "two layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        [ones],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def found_ranges(values: np.ndarray) -> tuple[dict[str, tuple[float, float]], dict[str, tuple[float, float]]]:
    """The widest ranges and those of least error, where the only image has these values."""
    tensors = [values.astype(np.float32).reshape(1, 1, 1, -1)]
    model = two_layers(values.size)
    widest = ptq.calibrate(model, tensors)
    return widest, clipped_ranges(model, widest, tensors)


def squared_error(values: np.ndarray, bounds: tuple[float, float]) -> float:
    return float(np.square(quantized_u8(values, bounds) - values).mean())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    freedom=st.floats(1.5, 30.0),
    scale=st.sampled_from([1e-4, 1.0, 1e4]),
    shift=st.floats(-3.0, 3.0),
)
def test_the_error_is_not_larger_than_with_the_whole_range(
    seed: int, freedom: float, scale: float, shift: float
) -> None:
    values = ((np.random.default_rng(seed).standard_t(freedom, 4000) + shift) * scale).astype(np.float32)
    widest, found = found_ranges(values)
    low, high = widest["inner"]
    assert min(0.0, low) <= found["inner"][0] <= 0.0 <= found["inner"][1] <= max(0.0, high)
    # The estimate is of a histogram, and of a zero point that is not yet rounded.
    assert squared_error(values, found["inner"]) <= 1.2 * squared_error(values, widest["inner"])


def test_heavy_tails_are_cut_off() -> None:
    values = np.random.default_rng(0).laplace(size=200000).astype(np.float32)
    widest, found = found_ranges(values)
    assert squared_error(values, found["inner"]) < 0.8 * squared_error(values, widest["inner"])


def test_what_the_tail_reads_and_the_input_keep_their_range() -> None:
    values = np.random.default_rng(0).laplace(size=20000).astype(np.float32)
    widest, found = found_ranges(values)
    assert found.keys() == widest.keys()
    assert {name for name in found if found[name] != widest[name]} == {"inner"}


def test_transformers_keep_their_ranges(tmp_path: Path) -> None:
    model = graph_session.folded(vit_graph(tmp_path / "vit.onnx"))
    rng = np.random.default_rng(0)
    tensors = [rng.normal(size=(1, 3, SIDE_PX, SIDE_PX)).astype(np.float32) for _ in range(3)]
    widest = ptq.calibrate(model, tensors)
    assert clipped_ranges(model, widest, tensors) == widest


def test_evenly_distributed_values_keep_their_range() -> None:
    values = np.linspace(-1.0, 2.0, 5000, dtype=np.float32)
    widest, found = found_ranges(values)
    assert found["inner"] == pytest.approx(widest["inner"])


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_a_constant_keeps_its_range(value: float) -> None:
    _, found = found_ranges(np.full(10, value, np.float32))
    assert found["inner"] == pytest.approx((min(0.0, value), max(0.0, value)))


def test_the_classifier_loses_less() -> None:
    bundle = bundle_or_skip(EFFICIENTNET)
    model = graph_session.folded(bundle.folder / bundle.manifest.graphs[0].file)
    prepare = Preprocessor(bundle.manifest.input).prepare
    tensors = [prepare(video_frame("vtest.avi", i))[0].copy() for i in range(0, 600, 75)]
    later = [prepare(video_frame("vtest.avi", i))[0].copy() for i in range(640, 780, 35)]
    widest = ptq.calibrate(model, tensors)
    recipe = Int8Recipe("u8", "s8", True, False, "")

    def sqnr(ranges: dict[str, tuple[float, float]]) -> float:
        noise = []
        sessions = [graph_session.session(one) for one in (model, ptq.quantize(model, ranges, recipe))]
        for tensor in later:
            exact, found = (
                {str(i): v for i, v in enumerate(one.run(None, {bundle.manifest.input.name: tensor}))}
                for one in sessions
            )
            noise.append(sqnr_db(exact, found))
        return float(np.mean(noise))

    assert sqnr(clipped_ranges(model, widest, tensors)) > sqnr(widest) + 0.3
