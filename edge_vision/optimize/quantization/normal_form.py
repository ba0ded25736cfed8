"""Brings graphs of all exporters to the form that the quantizer needs: opset, node names, float32, sums."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import numpy as np

from edge_vision.offline.onnx_writer import import_onnx
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization.graph_edit import short_error

MIN_OPSET = 13
"""The first one with scales for each channel."""
_FLOAT, _FLOAT16 = 1, 10


def modernize(model: Any) -> Any:
    """The model with at least MIN_OPSET. Raises OptimizeError."""
    onnx = import_onnx()
    opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), MIN_OPSET)
    if opset >= MIN_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, MIN_OPSET)
    except Exception as error:  # As above.
        raise OptimizeError(
            f"expected a graph of opset {MIN_OPSET} or later, got {opset}, which onnx cannot convert: "
            f"{short_error(error)}; export the model with opset {MIN_OPSET} or later"
        ) from None


def name_nodes(model: Any) -> None:
    """Name nodes without a name after their operator and first output."""
    used = {node.name for node in model.graph.node}
    for node in model.graph.node:
        base = node.name or f"{node.op_type}_{next(filter(None, node.output), '')}"
        # A name that the graph gives to another node gets a number.
        names = (base, *(f"{base}_{number}" for number in range(len(model.graph.node))))
        node.name = node.name or next(name for name in names if name not in used)
        used.add(node.name)


def fuse_sums(model: Any) -> None:
    """Let sums of two tensors be `Add`, and constants added to one be the bias of its convolution.

    TensorFlow's converters write (convolution + shortcut) + bias with `Sum`, for which no runtime has an int8
    kernel: five operators in fp32 instead of one. The model has folded constants.
    """
    graph = model.graph
    for node in graph.node:
        if node.op_type == "Sum" and len(node.input) == 2:
            node.op_type = "Add"
    constants = {one.name: one for one in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(value.name for value in graph.output)
    for outer in [node for node in graph.node if node.op_type == "Add"]:
        added = [name for name in outer.input if name in constants]
        inner = next((makers[n] for n in outer.input if n in makers and uses[n] == 1), None)
        if len(added) != 1 or inner is None or inner.op_type != "Add":
            continue
        conv = next(
            (
                makers[name]
                for name in inner.input
                if name in makers and uses[name] == 1 and makers[name].op_type == "Conv"
            ),
            None,
        )
        if conv is not None and _add_to_bias(graph, constants, conv, added[0]):
            inner.output[0] = outer.output[0]
            makers[inner.output[0]] = inner
            graph.node.remove(outer)
            uses.subtract(added)
    for one in [one for one in graph.initializer if one.name in uses and not uses[one.name]]:
        graph.initializer.remove(one)


def pool_before_activations(model: Any) -> None:
    """Exchange a MaxPool with the activation before it, which alone it reads: as that rises, nothing changes.

    ONNX Runtime moves quantizers to before a MaxPool, but not an activation. Its pooling of 8-bit values in
    NCHW took longer than all convolutions of NanoDet together.
    """
    uses = Counter(name for node in model.graph.node for name in node.input)
    uses.update(value.name for value in model.graph.output)
    makers = {node.output[0]: node for node in model.graph.node}
    for pool in [node for node in model.graph.node if node.op_type == "MaxPool" and len(node.output) == 1]:
        activation = makers.get(pool.input[0])
        if activation is None or not _rises(activation) or uses[pool.input[0]] != 1:
            continue
        inner, outer = f"{pool.output[0]}/pooled", pool.output[0]
        pool.input[0], pool.output[0] = activation.input[0], inner
        activation.input[0], activation.output[0] = inner, outer
        nodes = [node for node in model.graph.node if node is not activation]
        nodes.insert(nodes.index(pool) + 1, activation)
        nodes = [copy.deepcopy(node) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        pool_before_activations(model)
        return


def _rises(node: Any) -> bool:
    """Whether an activation maps larger values to larger or equal ones."""
    if node.op_type == "LeakyRelu":
        return next((one.f for one in node.attribute if one.name == "alpha"), 0.01) >= 0
    return node.op_type in ("Relu", "Clip", "Sigmoid")


def _add_to_bias(graph: Any, constants: dict[str, Any], conv: Any, added: str) -> bool:
    """Add a constant to a convolution's bias, if both are constants with one value for each channel."""
    numpy_helper = import_onnx().numpy_helper
    values = numpy_helper.to_array(constants[added])
    if any(name not in constants for name in conv.input[1:]):
        return False
    channels, sides = constants[conv.input[1]].dims[0], len(constants[conv.input[1]].dims) - 2
    if values.shape[-sides - 1 :] != (channels, *[1] * sides) or values.size != channels:
        return False
    before = numpy_helper.to_array(constants[conv.input[2]]) if len(conv.input) > 2 else np.float32(0)
    bias = numpy_helper.from_array(np.asarray(before + values.ravel(), np.float32), f"{conv.name}/bias")
    graph.initializer.append(bias)
    constants[bias.name] = bias
    conv.input[2:] = [bias.name]
    return True


def to_float32(model: Any) -> None:
    """Let a float16 graph compute in float32; its inputs and outputs keep their types."""
    graph = model.graph
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == _FLOAT16:
                attribute.i = _FLOAT
            elif attribute.HasField("t"):
                _widen(attribute.t)
    for tensor in graph.initializer:
        _widen(tensor)
    inner = {}
    for values, is_input in ((graph.input, True), (graph.output, False)):
        for value in values:
            if value.type.tensor_type.elem_type == _FLOAT16:
                inner[value.name] = is_input
    if inner:
        del graph.value_info[:]
        _cast_outside(graph, inner)


def _widen(tensor: Any) -> None:
    if tensor.data_type == _FLOAT16:
        numpy_helper = import_onnx().numpy_helper
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _cast_outside(graph: Any, names: dict[str, bool]) -> None:
    """Compute with other tensors than these inputs (true) and outputs, and cast between them."""
    make = import_onnx().helper.make_node
    inside = {name: f"{name}/float32" for name in names}
    for node in graph.node:
        for side in (node.input, node.output):
            side[:] = [inside.get(name, name) for name in side]
    nodes = [
        make("Cast", [name], [inside[name]], name=inside[name], to=_FLOAT) for name in names if names[name]
    ]
    nodes += graph.node
    nodes += [make("Cast", [inside[n]], [n], name=inside[n], to=_FLOAT16) for n in names if not names[n]]
    del graph.node[:]
    graph.node.extend(nodes)
