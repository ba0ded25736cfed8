"""Changes ONNX graphs: input size, weights in half precision. `onnx` is imported when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.bundles.onnx_writer import import_onnx
from edge_vision.optimize.candidate import Size
from edge_vision.optimize.errors import OptimizeError

_SMALLEST = 1024
"""Constants below this many numbers keep fp32: nothing is won, and shapes and limits are among them."""


def load_model(path: Path) -> Any:
    """The model of a verified file. Raises OptimizeError."""
    onnx = import_onnx()
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:  # Protobuf's own errors have no common base.
        raise OptimizeError(f"{path}: expected an ONNX file, got: {error}") from None


def resize(model: Any, name: str, layout: str, size: Size) -> None:
    """Make the graph take one picture of another size; shapes within are found anew. The weights stay.

    Raises OptimizeError where the graph lacks the input or its shapes contradict the size.
    """
    onnx = import_onnx()
    graph = model.graph
    places = [value for value in graph.input if value.name == name]
    if not places:
        raise OptimizeError(f"expected an input {name!r} of the graph, got {[v.name for v in graph.input]}")
    dims = places[0].type.tensor_type.shape.dim
    if len(dims) != 4:
        raise OptimizeError(f"expected an input of 4 dimensions, got {len(dims)}")
    rows, columns = (2, 3) if layout == "nchw" else (1, 2)
    for at, side in ((0, 1), (rows, size.height_px), (columns, size.width_px)):
        dims[at].dim_value = side
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as error:  # Of its own kinds, by version.
        raise OptimizeError(f"the graph does not take pictures of {size}: {_short(error)}") from None
    model.CopyFrom(inferred)
    del graph.value_info[:]


def input_sides(model: Any, name: str) -> list[int]:
    """The dimensions of an input; 0 where one is open. Empty where there is no such input."""
    values = [value for value in model.graph.input if value.name == name]
    return [dim.dim_value for dim in values[0].type.tensor_type.shape.dim] if values else []


def halve_weights(model: Any) -> int:
    """Store large float32 constants as float16, each with a Cast that runtimes fold away when they load.

    Half the file, fp32 arithmetic. Values beyond float16 stay as they are. Returns how many were changed.
    """
    onnx = import_onnx()
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if values.size < _SMALLEST or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.fp16"))
        casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], name=f"{name}.cast", to=1))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return len(casts)


def tidy_opsets(model: Any) -> None:
    """ONNX Runtime lists every operator set that it knows; other runtimes need only those in use."""
    used = {node.domain for node in model.graph.node} | {""}
    kept = [one for one in model.opset_import if one.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def op_types(model: Any) -> Mapping[str, int]:
    """How often each operator occurs."""
    counts: dict[str, int] = {}
    for node in model.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
