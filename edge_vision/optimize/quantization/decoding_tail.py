"""The decoding tail of a graph: what follows the last layers with weights, up to the outputs.

There, tensors of different roles meet: scores from 0 to 1, distances in cells, coordinates in pixels. One
range for all leaves few steps to the small ones, and a selection (TopK, a comparison with a maximum) of
quantized values finds ties instead of an order. The tail has almost none of the arithmetic, so it stays in
fp32.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

LAYER_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators with almost all multiplications. A layer is one of these with its activation."""
_SHAPE_OPS = ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Split", "Slice")
_SELECTIONS = ("TopK", "ArgMax", "ArgMin", "NonMaxSuppression", "Equal", "Greater", "GreaterOrEqual")


def tail_nodes(model: Any) -> list[Any]:
    """The nodes of the tail in graph order."""
    constants = {tensor.name for tensor in model.graph.initializer}
    distributions = _distributions(model)
    needed: set[str] = set()
    found = []
    for node in reversed(model.graph.node):
        has_weights = node.op_type in LAYER_OPS and not constants.isdisjoint(node.input)
        # A layer that reads a softmax is an expectation over a distribution, as YOLOv8's distances.
        is_layer = has_weights and node.input[0] not in distributions
        if is_layer or not needed.isdisjoint(node.output):
            needed.update(node.input)
        else:
            found.append(node)
    return found[::-1]


def tail_inputs(model: Any, outputs: Collection[str] = ()) -> list[str]:
    """The tensors that the tail reads from the layers, and the outputs that are none of the tail's.

    outputs: only what these of the graph's outputs depend on, if it has any of them.
    """
    given = {value.name for value in (*model.graph.input, *model.graph.initializer)} | {""}
    names = [value.name for value in model.graph.output]
    wanted = [name for name in names if name in outputs] or names
    for node in reversed(tail_nodes(model)):
        if not set(wanted).isdisjoint(node.output):
            wanted = [name for name in wanted if name not in node.output] + list(node.input)
    return [name for name in dict.fromkeys(wanted) if name not in given]


def comparing_nodes(model: Any) -> set[str]:
    """Names of the nodes that select by comparing values, and of those between them and the layers before."""
    makers = {name: node for node in model.graph.node for name in node.output}
    found: dict[str, Any] = {}
    open_nodes = [node for node in model.graph.node if node.op_type in _SELECTIONS]
    while open_nodes:
        node = open_nodes.pop()
        if node.name not in found and node.op_type not in (*LAYER_OPS, "Shape"):
            found[node.name] = node
            open_nodes += [makers[name] for name in node.input if name in makers]
    return set(found)


def _distributions(model: Any) -> set[str]:
    """The outputs of softmaxes, also in other shapes."""
    found: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "Softmax" or (node.op_type in _SHAPE_OPS and node.input[0] in found):
            found.update(node.output)
    return found
