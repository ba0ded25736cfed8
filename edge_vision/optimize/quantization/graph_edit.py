"""Edits of ONNX graphs: input size, weights in half precision. Imports `onnx` when used."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.offline.onnx_writer import import_onnx
from edge_vision.optimize.candidate import Size
from edge_vision.optimize.errors import OptimizeError

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
    """Change the graph to one image of another size, with all shapes inferred again. Weights are unchanged.

    Raises OptimizeError if the graph lacks the input or its shapes contradict the size.
    """
    onnx = import_onnx()
    graph = model.graph
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
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as error:  # The exception types depend on the version.
        raise OptimizeError(f"the graph does not accept images of {size}: {short_error(error)}") from None
    model.CopyFrom(inferred)
    del graph.value_info[:]


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


def op_types(model: Any) -> Counter[str]:
    """How often each operator occurs."""
    return Counter(node.op_type for node in model.graph.node)


def short_error(error: Exception) -> str:
    """The message of a runtime's exception on one line."""
    return " ".join(str(error).split())[:300]
