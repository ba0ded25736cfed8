"""Edits of ONNX graphs: input size, weights in half precision. Imports `onnx` when used."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.offline.onnx_writer import import_onnx
from edge_vision.optimize.candidate import Size
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.node_order import sorted_nodes

_MIN_HALVED = 1024
"""Constants with fewer elements keep fp32: they save no space, and shapes and limits are among them."""


def load_model(path: Path) -> Any:
    """The model of a verified file. Raises OptimizeError."""
    onnx = import_onnx()
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:  # Protobuf's errors have no common base class.
        raise OptimizeError(f"{path}: expected an ONNX file, got: {error}") from None


def resize(model: Any, name: str, layout: str, size: Size) -> None:
    """Change the graph to one image of another size, with all shapes inferred again. Weights are unchanged;
    shapes that the graph has as constants follow the size.

    Raises OptimizeError if the graph lacks the input or its shapes contradict the size.
    """
    onnx = import_onnx()
    graph = model.graph
    nodes = [copy.deepcopy(node) for node in sorted_nodes(graph)]  # Shape inference expects them in order.
    del graph.node[:]
    graph.node.extend(nodes)
    before = _shapes(model)
    inputs = [value for value in graph.input if value.name == name]
    if not inputs:
        raise OptimizeError(f"expected an input {name!r} of the graph, got {[v.name for v in graph.input]}")
    dims = inputs[0].type.tensor_type.shape.dim
    if len(dims) != 4:
        raise OptimizeError(f"expected an input of 4 dimensions, got {len(dims)}")
    rows, columns = (2, 3) if layout == "nchw" else (1, 2)
    for axis, side in ((0, 1), (rows, size.height_px), (columns, size.width_px)):
        dims[axis].dim_value = side
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    _scale_constant_shapes(model, before)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as error:  # The exception types depend on the version.
        raise OptimizeError(f"the graph does not accept images of {size}: {short_error(error)}") from None
    model.CopyFrom(inferred)
    del graph.value_info[:]


def _shapes(model: Any) -> dict[str, list[int]]:
    """Inferred shapes by tensor, without those that have dynamic dimensions or cannot be inferred."""
    inferred = import_onnx().shape_inference.infer_shapes(model, data_prop=True).graph
    found = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.dim_value for dim in dims):
            found[value.name] = [dim.dim_value for dim in dims]
    return found


def _scale_constant_shapes(model: Any, before: dict[str, list[int]]) -> None:
    """Scale the constant sizes of Resize nodes and shapes of Reshape nodes as their inputs.

    before: shapes at the former image size. Each changed constant may change the shapes of later nodes.
    """
    to_array = import_onnx().numpy_helper.to_array
    constants = {tensor.name: to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = to_array(node.attribute[0].t)
    after = _shapes(model)
    for node in model.graph.node:
        target = {"Resize": 3, "Reshape": 1}.get(node.op_type, len(node.input))
        if len(node.input) <= target or node.input[target] not in constants:
            continue
        old, new = before.get(node.input[0]), after.get(node.input[0])
        if old is None or new is None or old == new:
            continue
        wanted = constants[node.input[target]].tolist()
        scaled = (
            _scaled_sizes(wanted, old, new) if node.op_type == "Resize" else _scaled_shape(wanted, old, new)
        )
        if scaled != wanted:
            _set_constant(model, node, target, np.array(scaled, np.int64))
            after = _shapes(model)


def _scaled_sizes(sizes: list[int], old: list[int], new: list[int]) -> list[int]:
    return [round(size * after / before) for size, before, after in zip(sizes, old, new, strict=True)]


def _scaled_shape(shape: list[int], old: list[int], new: list[int]) -> list[int]:
    """The shape with each dimension that is one of the input's, or a product of them, as they are now."""
    changed = [(before, after) for before, after in zip(old, new, strict=True) if before != after]
    changed = [(math.prod(a for a, _ in changed), math.prod(b for _, b in changed)), *changed]
    scaled, count = list(shape), math.prod(new)
    if -1 in shape:
        fits = count % math.prod(side for side in shape if side > 0) == 0
        return shape if fits else [changed[0][1] if side == changed[0][0] else side for side in shape]
    for axis in reversed(range(len(shape))):  # The image's dimensions are the last ones in most layouts.
        if math.prod(scaled) == count:
            break
        factor = next((after / before for before, after in changed if shape[axis] % before == 0), 1.0)
        scaled[axis] = round(shape[axis] * factor)
    return scaled


def _set_constant(model: Any, node: Any, index: int, values: np.ndarray) -> None:
    """Let a node read a new constant."""
    name = f"{node.input[index]}/{node.output[0]}"
    model.graph.initializer.append(import_onnx().numpy_helper.from_array(values, name))
    node.input[index] = name


def input_sides(model: Any, name: str) -> list[int]:
    """The dimensions of an input, 0 for a dynamic one; empty if there is no such input."""
    values = [value for value in model.graph.input if value.name == name]
    return [dim.dim_value for dim in values[0].type.tensor_type.shape.dim] if values else []


def halve_weights(model: Any) -> int:
    """Store large float32 constants as float16, each with a Cast that runtimes fold at load time.

    This halves the file; arithmetic stays in fp32. Values beyond float16's range are left alone. Returns the
    number of changed constants.
    """
    onnx = import_onnx()
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if values.size < _MIN_HALVED or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.fp16"))
        casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], name=f"{name}.cast", to=1))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return len(casts)


def remove_unused_opsets(model: Any) -> None:
    """Remove operator sets that no node uses. ONNX Runtime writes all that it knows, which others reject."""
    used = {node.domain for node in model.graph.node} | {""}
    kept = [one for one in model.opset_import if one.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def with_outputs(model: Any, names: Sequence[str]) -> Any:
    """A copy of the model with these tensors as outputs too."""
    copied = copy.deepcopy(model)
    known = {value.name for value in model.graph.output}
    helper = import_onnx().helper
    copied.graph.output.extend(helper.make_empty_tensor_value_info(n) for n in names if n not in known)
    return copied


def dequantized(model: Any) -> dict[str, str]:
    """Of each tensor that is quantized and dequantized, the result, which its readers read."""
    quantized = {
        node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"
    }
    readers = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    return {quantized[node.input[0]]: node.output[0] for node in readers if node.input[0] in quantized}


def read_within(graph: Any) -> set[str]:
    """What the graphs of branches and loops read, of theirs and of this one."""
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    inner = [one for attribute in attributes for one in (attribute.g, *attribute.graphs)]
    read = {name for one in inner for node in one.node for name in node.input}
    read |= {value.name for one in inner for value in one.output}
    return read.union(*map(read_within, inner))


def op_types(model: Any) -> Counter[str]:
    """How often each operator occurs."""
    return Counter(node.op_type for node in model.graph.node)


def short_error(error: Exception) -> str:
    """The message of a runtime's exception on one line."""
    return " ".join(str(error).split())[:300]
