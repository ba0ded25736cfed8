"""GPTQ rounding: on constructed matrices, a tiny graph, and the real classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from model_cases import EFFICIENTNET, bundle_or_skip, save_graph, video_frame
from onnx import helper, numpy_helper
from optimize_cases import SIDE_PX, tiny_graph

from edge_vision.backends.selection.parity import sqnr_db
from edge_vision.core.preprocess import Preprocessor
from edge_vision.optimize.quantization import gptq, graph_session, input_moments, ptq
from edge_vision.optimize.quantization.decoding_tail import LAYER_OPS
from edge_vision.optimize.quantization.int8_recipe import Int8Recipe
from edge_vision.optimize.quantization.layer_inputs import layer_weights, multiplications, sampled_inputs

RECIPE = Int8Recipe("u8", "s8", True, False, "")


def loss(rows: np.ndarray, ints: np.ndarray, second: np.ndarray) -> float:
    """Mean squared error of the outputs."""
    error = rows - ints
    return float(np.einsum("grk,gkl,grl->", error, second, error))


def test_weights_of_uncorrelated_inputs_round_to_nearest() -> None:
    rows = np.random.default_rng(0).normal(0, 40, (3, 5, 9))
    second = np.broadcast_to(np.eye(9), (3, 9, 9))
    assert np.array_equal(gptq.rounded(rows, second, 127), np.clip(np.rint(rows), -127, 127))


def test_moments_with_a_negative_eigenvalue_are_damped_more() -> None:
    second = np.array([[[1.0, 2.0], [2.0, 1.0]]])
    ints = gptq.rounded(np.array([[[1.4, 2.6]]]), second, 127)
    assert np.isfinite(ints).all() and np.abs(ints - [[[1.4, 2.6]]]).max() < 1.5


@pytest.mark.parametrize(("groups", "k"), [(16, 9), (1, 300)], ids=["depthwise", "wide, in blocks"])
@pytest.mark.parametrize("largest", [127, 64])
def test_weights_of_correlated_inputs_compensate_each_other(groups: int, k: int, largest: int) -> None:
    rng = np.random.default_rng(1)
    inputs = rng.normal(0, 1, (groups, 2000, 4)) @ rng.normal(0, 1, (groups, 4, k)) + rng.normal(
        0, 0.1, (groups, 2000, k)
    )
    second = np.matmul(inputs.transpose(0, 2, 1), inputs) / 2000
    rows = rng.uniform(-largest, largest, (groups, 8, k))
    ints = gptq.rounded(rows, second, largest)
    assert np.array_equal(ints, np.rint(ints)) and np.abs(ints).max() <= largest
    assert loss(rows, ints, second) < 0.3 * loss(rows, np.rint(rows), second)


def test_constant_inputs_round_to_nearest() -> None:
    rows = np.random.default_rng(2).normal(0, 40, (2, 3, 9))
    assert np.array_equal(gptq.rounded(rows, np.zeros((2, 9, 9)), 127), np.rint(rows))


def test_weights_times_sampled_inputs_are_the_outputs_of_the_layer(tmp_path: Path) -> None:
    """As the runtime computes them, with padding and strides."""
    file = tiny_graph(tmp_path / "tiny.onnx")
    model = onnx.load(file)
    layers = layer_weights(model)
    assert set(layers) == {"first", "last"} and layers["last"].rows.shape == (4, 8)
    model.graph.output.append(helper.make_empty_tensor_value_info("map"))
    image = np.random.default_rng(3).normal(0, 1, (1, 3, SIDE_PX, SIDE_PX)).astype(np.float32)
    wanted = graph_session.session(model).run(["map"], {"images": image})[0]
    samples = sampled_inputs(image, layers["first"], np.random.default_rng(0), 10**6)
    made = (layers["first"].rows @ samples[0].T).reshape(wanted.shape)
    assert np.allclose(made, wanted, atol=1e-4)
    assert sampled_inputs(image, layers["first"], np.random.default_rng(0), 50).shape == (1, 50, 27)
    counts = multiplications(model, LAYER_OPS)
    assert counts == {"first": 27 * 8 * 32 * 32, "last": 8 * 4}


def quantized(model: onnx.ModelProto, tensors: list[np.ndarray], only: int = 0) -> tuple:
    """The model in int8 rounded to nearest, by GPTQ, and its rounded weights. only: first layers, 0 = all."""
    ranges = ptq.calibrate(model, tensors)
    nearest = ptq.quantize(model, ranges, RECIPE)
    moments = input_moments.input_moments(model, tensors, ranges)
    kept = {name: moments[name] for name in list(moments)[: only or None]}
    rounding = gptq.round_weights(model, nearest, kept, RECIPE.largest_weight)
    return nearest, ptq.quantize(model, ranges, RECIPE, rounding=rounding), rounding


@pytest.mark.parametrize("max_inputs", [input_moments.MAX_INPUTS, 8], ids=["gptq", "too many inputs for it"])
def test_the_bias_absorbs_the_mean_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_inputs: int
) -> None:
    monkeypatch.setattr(input_moments, "MAX_INPUTS", max_inputs)
    rng = np.random.default_rng(4)
    weights = (
        numpy_helper.from_array(rng.normal(0, 1, (5, 32)).astype(np.float32), "matrix"),
        numpy_helper.from_array(rng.normal(0, 1, 5).astype(np.float32), "bias"),
    )
    node = helper.make_node("Gemm", ["images", "matrix", "bias"], ["logits"], name="only", transB=1)
    model = onnx.load(
        save_graph(tmp_path / "m.onnx", [node], {"images": [1, 32]}, {"logits": [1, 5]}, weights)
    )
    tensors = [(3.0 + rng.normal(0, 0.2, (1, 32))).astype(np.float32) for _ in range(200)]
    plain, made, _ = quantized(model, tensors)
    outputs = [
        np.array([session.run(None, {"images": one})[0] for one in tensors])
        for session in (graph_session.session(one, exact=True) for one in (model, plain, made))
    ]
    before, after = (np.abs((one - outputs[0]).mean(0)).max() for one in outputs[1:])
    assert after < 0.3 * before


def test_products_without_a_bias_and_with_transposed_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    matrix = rng.normal(0, 1, (64, 6)).astype(np.float32)
    node = helper.make_node("MatMul", ["images", "matrix"], ["logits"], name="only")
    shapes = {"images": [1, 7, 64]}, {"logits": [1, 7, 6]}
    weights = (numpy_helper.from_array(matrix, "matrix"),)
    model = onnx.load(save_graph(tmp_path / "m.onnx", [node], *shapes, weights))
    mix = rng.normal(0, 1, (3, 64))
    tensors = [(rng.normal(0, 1, (1, 7, 3)) @ mix).astype(np.float32) for _ in range(50)]
    _, made, rounding = quantized(model, tensors)
    ints = rounding["only"].weights
    assert ints.shape == (64, 6) and not rounding["only"].bias_shift.any()
    constants = {one.name: numpy_helper.to_array(one) for one in made.graph.initializer}
    assert np.array_equal(constants["matrix_quantized"], ints)
    inputs, steps = np.concatenate(tensors).reshape(-1, 64), constants["matrix_scale"]
    gptq_error, nearest_error = (
        np.square(inputs @ (matrix - one * steps)).mean() for one in (ints, np.rint(matrix / steps))
    )
    assert gptq_error < 0.3 * nearest_error


def test_rounded_weights_are_stored_for_the_next_graph(tmp_path: Path) -> None:
    found = {"a/b": gptq.RoundedWeights(np.ones((2, 3), np.int8), np.zeros(2, np.float32))}
    gptq.write_rounding(found, tmp_path / "new" / "64x64.127.npz")
    again = gptq.read_rounding(tmp_path / "new" / "64x64.127.npz")
    assert again is not None and np.array_equal(again["a/b"].weights, found["a/b"].weights)
    assert gptq.read_rounding(tmp_path / "none.npz") is None


def test_gptq_improves_the_first_depthwise_layers_of_the_real_classifier() -> None:
    bundle = bundle_or_skip(EFFICIENTNET)
    model = graph_session.folded(bundle.verify(bundle.manifest.graphs[0]))
    preprocessor = Preprocessor(bundle.manifest.input)

    def of(clip: str, *frames: int) -> list[np.ndarray]:
        return [preprocessor.prepare(video_frame(clip, i))[0].copy() for i in frames]

    plain, made, _ = quantized(model, of("bikes.mp4", *range(10, 250, 30)), only=6)
    evaluation = of("vtest.avi", 50, 100, 200, 300) + of("carphone_pristine.mp4", 5, 50)
    sessions = [graph_session.session(one, exact=True) for one in (model, plain, made)]
    wanted, before, after = (
        np.concatenate([session.run(["logits"], {"images": one})[0] for one in evaluation])
        for session in sessions
    )
    assert sqnr_db({"y": wanted}, {"y": after}) > sqnr_db({"y": wanted}, {"y": before}) + 3.0
