"""Channel equalization: the outputs stay the same, and channels with narrow ranges get more steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import EFFICIENTNET, SSD, bundle_or_skip
from onnx import TensorProto, helper, numpy_helper
from optimize_cases import SIDE_PX, tiny_graph

from edge_vision.backends.selection.parity import sqnr_db
from edge_vision.optimize.quantization import equalization, graph_session, ptq
from edge_vision.optimize.quantization.equalization import MAX_FACTOR, channel_factors, equalized
from edge_vision.optimize.quantization.int8_recipe import Int8Recipe
from edge_vision.optimize.quantization.layer_quantizer import layer_quantizer, read_statistics

RECIPE = Int8Recipe("u8", "s8", True, False, "")
CHANNELS, SIDE = 4, 8
BLOCKS = ("relu", "leaky", "depthwise", "residual", "grouped", "pool", "clip", "sigmoid", "gate")


class Graph:
    """A chain of blocks between a convolution on the image and a matrix product."""

    def __init__(self, blocks: tuple[str, ...], seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        last = self._conv("images", inputs=3)
        for block in blocks:
            last = getattr(self, f"_{block}")(last)
        last = self._node("Flatten", self._node("GlobalAveragePool", last))
        matrix, bias = self._constant((5, CHANNELS)), self._constant((5,))
        self._node("Gemm", last, matrix, bias, output="logits", transB=1)

    def model(self) -> onnx.ModelProto:
        values = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (("images", [1, 3, SIDE, SIDE]), ("logits", [1, 5]))
        ]
        graph = helper.make_graph(self._nodes, "test", values[:1], values[1:], self._constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def _constant(self, shape: tuple[int, ...]) -> str:
        name = f"c{len(self._constants)}"
        values = self._rng.normal(0, 0.4, shape).astype(np.float32)
        self._constants.append(numpy_helper.from_array(values, name))
        return name

    def _node(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def _conv(self, last: str, inputs: int = CHANNELS, group: int = 1) -> str:
        weights = self._constant((CHANNELS, inputs // group, 3, 3))
        bias = [self._constant((CHANNELS,))] if self._rng.random() < 0.5 else []
        return self._node("Conv", last, weights, *bias, pads=[1] * 4, group=group)

    def _relu(self, last: str) -> str:
        return self._conv(self._node("Relu", last))

    def _leaky(self, last: str) -> str:
        return self._conv(self._node("LeakyRelu", last, alpha=0.2))

    def _depthwise(self, last: str) -> str:
        return self._conv(last, group=CHANNELS)

    def _grouped(self, last: str) -> str:
        return self._conv(last, group=2)

    def _residual(self, last: str) -> str:
        return self._node("Add", last, self._relu(last))

    def _pool(self, last: str) -> str:
        return self._node("MaxPool", last, kernel_shape=[2, 2], strides=[1, 1], pads=[0, 0, 1, 1])

    def _clip(self, last: str) -> str:
        for value, name in ((0.0, "least"), (0.5, "most")):
            if all(one.name != name for one in self._constants):
                self._constants.append(numpy_helper.from_array(np.float32(value), name))
        return self._conv(self._node("Clip", last, "least", "most"))

    def _sigmoid(self, last: str) -> str:
        return self._conv(self._node("Sigmoid", last))

    def _gate(self, last: str) -> str:
        return self._node("Mul", last, self._node("Sigmoid", self._conv(last)))


def outputs(model: Any, image: np.ndarray, exact: bool = False) -> list[np.ndarray]:
    found: list[np.ndarray] = graph_session.session(model, exact).run(None, {"images": image})
    return found


def images(count: int = 1, side: int = SIDE, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 1, (1, 3, side, side)).astype(np.float32) for _ in range(count)]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(BLOCKS), max_size=6), st.integers(0, 999))
def test_the_outputs_stay_the_same(blocks: list[str], seed: int) -> None:
    model = Graph(tuple(blocks), seed).model()
    (image,) = images(seed=seed)
    factors = channel_factors(model, [image], ptq.quantized_tensors(model))
    for factor in factors.values():
        assert factor.shape == (CHANNELS,) and factor.min() == 1.0 and factor.max() <= MAX_FACTOR
    before, after = outputs(model, image)[0], outputs(equalized(model, factors), image)[0]
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * max(1.0, float(np.abs(before).max())))


@pytest.mark.parametrize(
    ("blocks", "groups"),
    [
        ((), 1),
        (("relu", "leaky"), 3),
        (("residual",), 1),
        (("relu", "residual", "residual"), 2),
        (("depthwise", "grouped", "pool"), 3),
        (("clip",), 1),
        (("clip", "relu"), 2),
        (("sigmoid",), 1),
        (("gate",), 0),
    ],
)
def test_layers_that_do_not_pass_on_a_factor_end_a_group(blocks: tuple[str, ...], groups: int) -> None:
    model = Graph(blocks).model()
    assert len(channel_factors(model, images(), ptq.quantized_tensors(model))) == groups


def test_channels_get_the_same_width(tmp_path: Path) -> None:
    model = narrowed(tmp_path)
    tensors = images(8, SIDE_PX)
    quantized = ptq.quantized_tensors(model)
    (factor,) = channel_factors(model, tensors, quantized).values()
    assert factor[0] == pytest.approx(MAX_FACTOR) and factor[1:].max() < 3
    after = equalized(model, {"map": factor})
    left = channel_factors(after, tensors, quantized)["map"]
    assert left[1:] == pytest.approx(1.0) and left[0] == pytest.approx(20 / MAX_FACTOR, rel=0.7)


def narrowed(folder: Path) -> onnx.ModelProto:
    """The first channel of the convolution has a twentieth of its range, which only the last layer undoes."""
    model = onnx.load(tiny_graph(folder / "tiny.onnx"))
    constants = {one.name: one for one in model.graph.initializer}
    for name, index, factor in (("kernel", np.s_[:1], 1 / 20), ("matrix", np.s_[:, :1], 20.0)):
        values = numpy_helper.to_array(constants[name]).copy()
        values[index] *= factor
        constants[name].CopyFrom(numpy_helper.from_array(values, name))
    return model


def test_int8_loses_less_with_channels_of_different_ranges(tmp_path: Path) -> None:
    model = narrowed(tmp_path)
    tensors, others = images(8, SIDE_PX), images(8, SIDE_PX, seed=1)
    plain = ptq.quantize(model, ptq.calibrate(model, tensors), RECIPE)
    made = layer_quantizer(model, tensors, RECIPE, tmp_path / "statistics.json").without(())
    losses = []
    for one in (plain, made):
        pairs = [(outputs(model, x)[0], outputs(one, x, exact=True)[0]) for x in others]
        losses.append(np.mean([sqnr_db({"logits": a}, {"logits": b}) for a, b in pairs]))
    assert losses[1] > losses[0] + 6


def test_a_channel_that_is_constant_on_the_images_gets_the_largest_factor(tmp_path: Path) -> None:
    model = narrowed(tmp_path)
    kernel = next(one for one in model.graph.initializer if one.name == "kernel")
    values = numpy_helper.to_array(kernel).copy()
    values[0] = 0.0
    kernel.CopyFrom(numpy_helper.from_array(values, "kernel"))
    (factor,) = channel_factors(model, images(2, SIDE_PX), ptq.quantized_tensors(model)).values()
    assert factor[0] == MAX_FACTOR
    nothing = [np.zeros((1, 3, SIDE_PX, SIDE_PX), np.float32)]
    assert np.all(channel_factors(model, nothing, ptq.quantized_tensors(model))["map"] == 1.0)


def test_tensors_and_weights_that_others_read_are_left_alone(tmp_path: Path) -> None:
    def groups(change: Any) -> int:
        model = onnx.load(tiny_graph(tmp_path / "tiny.onnx"))
        change(model.graph)
        return len(equalization._groups(model))

    def as_output(graph: Any) -> None:
        graph.output.append(helper.make_empty_tensor_value_info("pooled"))

    def shared_weights(graph: Any) -> None:
        graph.node.insert(0, helper.make_node("Conv", ["images", "kernel"], ["other"], name="other"))

    def read_in_a_branch(graph: Any) -> None:
        inner = helper.make_graph([helper.make_node("Relu", ["active"], ["r"])], "then", [], [])
        inner.output.append(helper.make_empty_tensor_value_info("r"))
        graph.node.append(
            helper.make_node("If", ["condition"], ["read"], name="if", then_branch=inner, else_branch=inner)
        )

    assert groups(lambda graph: None) == 1
    assert [groups(one) for one in (as_output, shared_weights, read_in_a_branch)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("nodes", "shape"),
    [
        ([("Flatten", {}), ("Add", {})], [1, CHANNELS, SIDE, CHANNELS]),
        ([("Squeeze", {}), ("Add", {})], [1, CHANNELS, SIDE, CHANNELS]),
    ],
)
def test_pooled_channels_on_another_axis_are_left_alone(
    nodes: list[tuple[str, dict[str, Any]]], shape: list[int]
) -> None:
    """A sum with them is a broadcast over other channels."""
    graph = Graph(())
    last = "t0"
    graph._nodes = graph._nodes[:2]  # The convolution, and its pool.
    flat = graph._node(nodes[0][0], graph._nodes[1].output[0])
    added = graph._node("Add", last, flat)
    graph._node("GlobalAveragePool", graph._conv(added), output="logits")
    model = graph.model()
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = CHANNELS
    model.graph.output[0].type.tensor_type.ClearField("shape")
    (image,) = images(side=SIDE)
    image = image[..., :CHANNELS].copy()
    factors = channel_factors(model, [image], frozenset({"t0", added}))
    np.testing.assert_allclose(
        outputs(equalized(model, factors), image)[0], outputs(model, image)[0], rtol=1e-5, atol=1e-6
    )
    assert "t0" not in factors


def test_weights_that_are_outputs_or_inputs_of_the_graph_are_left_alone(tmp_path: Path) -> None:
    for side in ("input", "output"):
        model = onnx.load(tiny_graph(tmp_path / "tiny.onnx"))
        value = helper.make_tensor_value_info("kernel", TensorProto.FLOAT, [8, 3, 3, 3])
        getattr(model.graph, side).append(value)
        assert not channel_factors(model, images(1, SIDE_PX), frozenset({"map", "active"}))


def test_infinite_activations_give_no_factor(tmp_path: Path) -> None:
    model = onnx.load(tiny_graph(tmp_path / "tiny.onnx"))
    (image,) = images(1, SIDE_PX)
    image[0, 0, 0, 0] = np.inf
    for factor in channel_factors(model, [image], ptq.quantized_tensors(model)).values():
        assert np.isfinite(factor).all() and factor.min() >= 1.0 and factor.max() <= MAX_FACTOR


@pytest.mark.parametrize(
    "edit",
    [
        lambda stored: stored["factors"].update(map=[1.0, 2.0]),
        lambda stored: stored["factors"].update(map=[10**400] * 8),
        lambda stored: stored["factors"].update(map=[float("inf")] * 8),
        lambda stored: stored["factors"].update(map=[0.5] * 8),
        lambda stored: stored["factors"].update(other=[1.0]),
        lambda stored: stored["ranges"].update(map=[float("nan"), 1.0]),
        lambda stored: stored["ranges"].update(map=[2.0, 1.0]),
        lambda stored: stored.update(ranges=[]),
    ],
)
def test_edited_statistics_are_measured_again(tmp_path: Path, edit: Any) -> None:
    file, tensors, model = tmp_path / "s.json", images(4, SIDE_PX), narrowed(tmp_path)
    layer_quantizer(model, tensors, RECIPE, file)
    before = file.read_text()
    stored = json.loads(before)
    edit(stored)
    file.write_text(json.dumps(stored))
    layer_quantizer(model, tensors, RECIPE, file)
    assert file.read_text() == before


def test_statistics_of_an_earlier_version_are_used_without_factors(tmp_path: Path) -> None:
    """A training that it began has weights of the graph as it was."""
    file, tensors, model = tmp_path / "s.json", images(4, SIDE_PX), narrowed(tmp_path)
    file.write_text(json.dumps(ptq.calibrate(model, tensors)))
    found = layer_quantizer(model, tensors, RECIPE, file)
    assert found.model.SerializeToString() == model.SerializeToString()
    assert found.ranges == ptq.calibrate(model, tensors)


def test_stored_statistics_give_the_same_graph(tmp_path: Path) -> None:
    file, tensors = tmp_path / "ranges" / "64x64.json", images(4, SIDE_PX)
    model = narrowed(tmp_path)
    first = layer_quantizer(model, tensors, RECIPE, file).without(())
    stored = read_statistics(file)
    assert stored is not None and stored[0]["map"][0] == pytest.approx(MAX_FACTOR) and "active" in stored[1]
    again = layer_quantizer(model, images(4, SIDE_PX, seed=9), RECIPE, file).without(())
    assert again.SerializeToString(deterministic=True) == first.SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", [SSD, EFFICIENTNET, "nanodet"])
def test_real_models_keep_their_outputs(name: str) -> None:
    bundle = bundle_or_skip(name)
    model = graph_session.folded(bundle.verify(bundle.manifest.graphs[0]))
    spec = bundle.manifest.input
    rng = np.random.default_rng(0)
    shape = (1, 3, spec.height_px, spec.width_px)
    image = rng.normal(0, 1, shape if spec.layout == "nchw" else (1, *shape[2:], 3)).astype(np.float32)
    factors = channel_factors(model, [image], ptq.quantized_tensors(model))
    assert factors and all(np.isfinite(one).all() and one.max() > 1.05 for one in factors.values())
    before, after = (
        graph_session.session(one).run(None, {spec.name: image}) for one in (model, equalized(model, factors))
    )
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=2e-5 * float(np.abs(one).max()))
