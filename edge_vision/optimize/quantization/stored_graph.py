"""The bytes of a graph as bundles store it: quantizers with short names.

ONNX Runtime's quantizer repeats the names of layers, which was a fifth of the file of a small network.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from edge_vision.offline.onnx_writer import import_onnx
from edge_vision.optimize.quantization.graph_edit import read_within

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def stored_bytes(model: Any) -> bytes:
    """The model with short names of what only quantizers make or read, and without zero points of biases,
    which are 0. Layers, weights in fp32, inputs and outputs keep their names."""
    model = copy.deepcopy(model)
    graph = model.graph
    _leave_out_zeros(graph)
    quantizers = [node for node in graph.node if node.op_type in _QUANTIZERS]
    others = [node for node in graph.node if node.op_type not in _QUANTIZERS]
    kept = {value.name for value in (*graph.input, *graph.output)}
    kept |= {name for node in others for name in node.output}
    kept |= {one.name for one in graph.initializer} & {name for node in others for name in node.input}
    kept |= read_within(graph)
    theirs = dict.fromkeys(name for node in quantizers for name in (*node.input, *node.output))
    short = _numbered([name for name in theirs if name and name not in kept], kept)
    for node in quantizers:
        node.name = ""
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [short.get(name, name) for name in names]
    for one in graph.initializer:
        one.name = short.get(one.name, one.name)
    values = [copy.deepcopy(one) for one in graph.value_info if one.name not in short]
    del graph.value_info[:]
    graph.value_info.extend(values)
    return bytes(model.SerializeToString(deterministic=True))


def _leave_out_zeros(graph: Any) -> None:
    onnx = import_onnx()
    zeros = {
        one.name
        for one in graph.initializer
        if one.data_type == onnx.TensorProto.INT32 and not np.any(onnx.numpy_helper.to_array(one))
    }
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and zeros.intersection(node.input[2:]):
            del node.input[2:]
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    unused = zeros - used - read_within(graph)
    for one in [one for one in graph.initializer if one.name in unused]:
        graph.initializer.remove(one)


def _numbered(names: Sequence[str], used: Collection[str]) -> dict[str, str]:
    """A short name of each that is not used."""
    numbers = (f"q{number}" for number in itertools.count())
    return dict(zip(names, (name for name in numbers if name not in used), strict=False))
