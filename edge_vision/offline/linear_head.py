"""Adds a fitted linear head to the pooled features of a classifier: one ONNX graph for any backend.

Frozen features and a linear head on top is the "linear probe" of Alain and Bengio (2016, arXiv:1610.01644).
The head is folded into the graph as one Gemm, so a bundle needs no second file and no code.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_vision.errors import BundleError
from edge_vision.offline.onnx_writer import import_onnx

BATCH = "batch"
LOGITS = "logits"
SIZE_STEP_PX = 32
"""Input sides must be multiples of this: five halvings then pad as at the original size."""


def cut_features(model: bytes, output: str, size_px: int) -> bytes:
    """The part of an image classifier that computes `output`, for square images of size_px and any batch.

    model: a serialised ONNX model with one input (1, 3, h, w). output: (1, k), such as pooled features.
    Raises BundleError if there is no such output, or the graph cannot have this size.
    """
    onnx = import_onnx()
    if size_px < SIZE_STEP_PX or size_px % SIZE_STEP_PX:
        raise BundleError(f"expected a size that is a multiple of {SIZE_STEP_PX} px, got {size_px}")
    graph = onnx.load_model_from_string(model).graph
    known = {value.name for value in graph.output} | {name for node in graph.node for name in node.output}
    if output not in known:
        names = ", ".join(value.name for value in graph.output)
        raise BundleError(f"expected an output '{output}' in the base graph, got {names}; name another one")
    weights = {weight.name for weight in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise BundleError(f"expected a base graph with one input, got {', '.join(inputs) or 'none'}")
    nodes = _needed(graph, output)
    used = {name for node in nodes for name in node.input}
    kept = [weight for weight in graph.initializer if weight.name in used]
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    image = helper.make_tensor_value_info(inputs[0], kind, [BATCH, 3, size_px, size_px])
    features = helper.make_tensor_value_info(output, kind, [BATCH, None])
    return _serialised(helper.make_graph(nodes, graph.name, [image], [features], kept), model)


def _needed(graph: Any, output: str) -> list[Any]:
    """The nodes that an output depends on, in the graph's order."""
    wanted, nodes = {output}, []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            nodes.append(node)
    return nodes[::-1]


def _serialised(graph: Any, like: bytes) -> bytes:
    onnx = import_onnx()
    before = onnx.load_model_from_string(like)
    opsets = [onnx.helper.make_opsetid(one.domain, one.version) for one in before.opset_import]
    model = onnx.helper.make_model(
        graph, opset_imports=opsets, ir_version=before.ir_version, producer_name="edge_vision"
    )
    try:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        del model.graph.value_info[:]
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BundleError(f"the base graph cannot be cut at this output: {error}") from None
    return bytes(model.SerializeToString(deterministic=True))


def with_linear_head(features: bytes, weight: np.ndarray, bias: float) -> bytes:
    """A graph of `cut_features` with two logits on top, (batch, 2): 0 for "nothing", the head's for "wanted".

    weight: (k,) float32 for the unscaled features. The softmax of the two is the sigmoid of the second.
    Raises BundleError if there are not k features.
    """
    onnx = import_onnx()
    model = onnx.load_model_from_string(features)
    graph = model.graph
    name = graph.output[0].name
    sides = graph.output[0].type.tensor_type.shape.dim
    if len(sides) != 2 or sides[1].dim_value not in (0, len(weight)):
        raise BundleError(f"expected {sides[1].dim_value} weights for output '{name}', got {len(weight)}")
    both = np.stack([np.zeros_like(weight), weight]).astype(np.float32)
    for key, array in (("head.weight", both), ("head.bias", np.array([0.0, bias], np.float32))):
        graph.initializer.append(onnx.numpy_helper.from_array(array, key))
    gemm = onnx.helper.make_node("Gemm", [name, "head.weight", "head.bias"], [LOGITS], name=LOGITS, transB=1)
    graph.node.append(gemm)
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info(LOGITS, onnx.TensorProto.FLOAT, [BATCH, 2]))
    return _serialised(graph, features)
