"""Graphs as bundles store them: short names of quantizers, the same outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from model_cases import bundle_or_skip
from onnx import helper, numpy_helper
from optimize_cases import SIDE_PX, tiny_graph

from edge_vision.optimize.quantization import graph_session, ptq
from edge_vision.optimize.quantization.int8_recipe import Int8Recipe
from edge_vision.optimize.quantization.stored_graph import stored_bytes

RECIPE = Int8Recipe("u8", "s8", True, False, "")


def quantized(model: Any, tensor: np.ndarray) -> Any:
    return ptq.quantize(model, ptq.calibrate(model, [tensor]), RECIPE)


def outputs(model: Any, tensor: np.ndarray) -> dict[str, np.ndarray]:
    session = graph_session.session(model)
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: tensor}), strict=True))


def layers(model: Any) -> list[str]:
    return [node.name for node in model.graph.node if "Linear" not in node.op_type]


def check_same(model: Any, tensor: np.ndarray) -> onnx.ModelProto:
    """Its stored form is smaller, and has the same outputs, layers and int8 kernels."""
    data = stored_bytes(model)
    stored = onnx.load_from_string(data)
    onnx.checker.check_model(stored, full_check=True)
    assert len(data) < model.ByteSize()
    before, after = outputs(model, tensor), outputs(stored, tensor)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert ptq.summarize(stored) == ptq.summarize(model)
    layers = [
        [node.name for node in one.graph.node if "Linear" not in node.op_type] for one in (model, stored)
    ]
    assert layers[0] == layers[1]
    assert stored_bytes(stored) == data
    return stored


def test_a_quantized_graph_keeps_its_outputs(tmp_path: Path) -> None:
    tensor = np.random.default_rng(0).random((1, 3, SIDE_PX, SIDE_PX), np.float32)
    stored = check_same(quantized(onnx.load(tiny_graph(tmp_path / "m.onnx")), tensor), tensor)
    kinds = {one.name: one.data_type for one in stored.graph.initializer}
    biases = [
        node
        for node in stored.graph.node
        if node.op_type == "DequantizeLinear" and kinds.get(node.input[0]) == onnx.TensorProto.INT32
    ]
    assert biases and all(len(node.input) == 2 for node in biases)


@pytest.mark.parametrize("name", ["ssdlite_mobilenet_v2_coco", "efficientnet_lite0_imagenet"])
def test_shipped_models_keep_their_outputs(name: str) -> None:
    bundle = bundle_or_skip(name)
    model = graph_session.folded(bundle.verify(bundle.manifest.graphs[0]))
    sides = [one.dim_value for one in model.graph.input[0].type.tensor_type.shape.dim]
    tensor = np.random.default_rng(0).normal(0, 1, sides).astype(np.float32)
    check_same(quantized(model, tensor), tensor)


def test_a_name_that_the_graph_has_is_not_given_again(tmp_path: Path) -> None:
    model = onnx.load(tiny_graph(tmp_path / "m.onnx"))
    for one in model.graph.node:
        one.input[:] = ["q0" if name == "active" else "q1" if name == "flat" else name for name in one.input]
        one.output[:] = [
            "q0" if name == "active" else "q1" if name == "flat" else name for name in one.output
        ]
    tensor = np.random.default_rng(0).random((1, 3, SIDE_PX, SIDE_PX), np.float32)
    check_same(quantized(model, tensor), tensor)


def test_a_graph_without_quantizers_is_unchanged(tmp_path: Path) -> None:
    model = onnx.load(tiny_graph(tmp_path / "m.onnx"))
    assert stored_bytes(model) == model.SerializeToString(deterministic=True)


def test_what_a_branch_reads_keeps_its_name(tmp_path: Path) -> None:
    tensor = np.random.default_rng(0).random((1, 3, SIDE_PX, SIDE_PX), np.float32)
    model = quantized(onnx.load(tiny_graph(tmp_path / "m.onnx")), tensor)
    result = next(node for node in model.graph.node if node.name == "last").input[0]
    added = numpy_helper.from_array(np.float32(2.0), "two")
    value = helper.make_tensor_value_info("branch", onnx.TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Mul", [result, "two"], ["branch"])], "then", [], [value])
    model.graph.initializer.extend([added, numpy_helper.from_array(np.array(True), "yes")])
    chosen = helper.make_node("If", ["yes"], ["chosen"], "if", then_branch=branch, else_branch=branch)
    model.graph.node.append(chosen)
    model.graph.output.append(helper.make_tensor_value_info("chosen", onnx.TensorProto.FLOAT, None))
    stored = onnx.load_from_string(stored_bytes(model))
    before, after = outputs(model, tensor), outputs(stored, tensor)
    assert len(before) == 2 and all(np.array_equal(before[name], after[name]) for name in before)
