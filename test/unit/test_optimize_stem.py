"""The first layers that stay in fp32, and the order of pooling and activation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from model_cases import bundle_or_skip, save_graph
from onnx import helper, numpy_helper

from edge_vision.optimize.quantization import graph_session, ptq
from edge_vision.optimize.quantization.graph_edit import load_model
from edge_vision.optimize.quantization.int8_recipe import SAFE_FLAGS, int8_recipe
from edge_vision.optimize.quantization.normal_form import pool_before_activations
from edge_vision.optimize.quantization.stem import stem_layers

RECIPE = int8_recipe("onnxruntime", SAFE_FLAGS, "x86_64")
SIDE_PX, CHANNELS = 32, 16


def graph(path: Path, kernel: int = 3, projected: int = 8, pool_after: str = "") -> onnx.ModelProto:
    """A convolution, depthwise, 1x1. pool_after: an activation with a MaxPool after it, behind the first."""
    rng = np.random.default_rng(0)
    shapes = {
        "first": (CHANNELS, 3, kernel, kernel),
        "depthwise": (CHANNELS, 1, 3, 3),
        "project": (projected, CHANNELS, 1, 1),
        "last": (4, projected, 3, 3),
    }
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), f"{name}.w")
        for name, shape in shapes.items()
    ]
    nodes, at = [], "images"
    for name in shapes:
        group = CHANNELS if name == "depthwise" else 1
        nodes.append(helper.make_node("Conv", [at, f"{name}.w"], [f"{name}.y"], name, group=group))
        at = f"{name}.y"
        if name == "first" and pool_after:
            nodes += [
                helper.make_node(pool_after, [at], ["active"], "active"),
                helper.make_node("MaxPool", ["active"], ["pooled"], "pooled", kernel_shape=[2, 2]),
            ]
            at = "pooled"
        elif name == "first":
            nodes.append(helper.make_node("Relu", [at], ["active"], "active"))
            at = "active"
    inputs, outputs = {"images": [1, 3, SIDE_PX, SIDE_PX]}, {at: None}
    return load_model(save_graph(path, nodes, inputs, outputs, tuple(weights)))


def test_the_stem_ends_at_the_projection(tmp_path: Path) -> None:
    assert stem_layers(graph(tmp_path / "m.onnx")) == ("first", "depthwise", "project")


def test_an_expansion_is_not_in_the_stem(tmp_path: Path) -> None:
    assert stem_layers(graph(tmp_path / "m.onnx", projected=2 * CHANNELS)) == ("first", "depthwise")


def test_a_larger_kernel_suits_int8(tmp_path: Path) -> None:
    assert stem_layers(graph(tmp_path / "m.onnx", kernel=7)) == ()


def test_the_stem_ends_where_something_else_reads_it(tmp_path: Path) -> None:
    model = graph(tmp_path / "m.onnx")
    model.graph.output.append(helper.make_tensor_value_info("active", onnx.TensorProto.FLOAT, None))
    assert stem_layers(model) == ("first",)


@pytest.mark.parametrize(
    ("backend", "machine", "stays"),
    [("onnxruntime", "x86_64", True), ("onnxruntime", "aarch64", False), ("openvino", "x86_64", False)],
)
def test_the_stem_stays_in_fp32_where_that_was_measured(backend: str, machine: str, stays: bool) -> None:
    assert int8_recipe(backend, (), machine).fp32_stem == stays


def test_the_recipe_leaves_the_stem_in_fp32(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    graph(file)
    model = graph_session.folded(file)
    image = np.random.default_rng(1).normal(0, 1, (1, 3, SIDE_PX, SIDE_PX)).astype(np.float32)
    quantized = ptq.quantize(model, ptq.calibrate(model, [image]), RECIPE)
    fp32 = {one.name for one in quantized.graph.initializer if one.data_type == onnx.TensorProto.FLOAT}
    assert {"first.w", "depthwise.w", "project.w"} <= fp32 and "last.w" not in fp32
    assert list(ptq.quantized_layers(model, RECIPE)) == ["last"]


@pytest.mark.parametrize(("activation", "moves"), [("Relu", True), ("Sigmoid", True), ("HardSwish", False)])
def test_a_pool_moves_before_an_activation_that_rises(tmp_path: Path, activation: str, moves: bool) -> None:
    model = graph(tmp_path / "m.onnx", pool_after=activation)
    image = np.random.default_rng(1).normal(0, 1, (1, 3, SIDE_PX, SIDE_PX)).astype(np.float32)
    before = graph_session.session(model).run(None, {"images": image})
    pool_before_activations(model)
    order = [node.op_type for node in model.graph.node]
    assert (order.index("MaxPool") < order.index(activation)) == moves
    np.testing.assert_array_equal(before[0], graph_session.session(model).run(None, {"images": image})[0])


def test_the_stem_of_the_shipped_detectors() -> None:
    found = {}
    for name in ("ssdlite_mobilenet_v2_coco", "nanodet_320"):
        bundle = bundle_or_skip(name)
        graph_spec = next(one for one in bundle.manifest.graphs if one.precision == "fp32")
        found[name] = len(stem_layers(graph_session.folded(bundle.verify(graph_spec))))
    assert found == {"ssdlite_mobilenet_v2_coco": 3, "nanodet_320": 1}
