"""Reads an ONNX file without running it, and fixes it to one image of one size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.backends.base import TensorSpec
from edge_vision.errors import BundleError
from edge_vision.importer.model import Model, ModelSource
from edge_vision.offline.onnx_writer import import_onnx

_SAME = ("Cast", "Identity", "Transpose", "QuantizeLinear", "DequantizeLinear")
_NORMALISING = ("Sub", "Div", "Mul", "BatchNormalization")
_QUANTIZED = ("QuantizeLinear", "QLinearConv", "ConvInteger", "QLinearMatMul")
_MAX_DEPTH = 32


class OnnxModel(ModelSource):
    """A parsed ONNX file. Weights in other files of its folder are merged."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Raises BundleError."""
        self._onnx = import_onnx()
        self._data = path.read_bytes()
        self._proto = _parse(self._onnx, self._data, path)
        self._merged = _merge_weights(self._onnx, self._proto, path, max_bytes - len(self._data))
        graph = self._proto.graph
        weights = {weight.name for weight in graph.initializer}
        inputs = [value for value in graph.input if value.name not in weights]
        self.model = Model(
            path=path,
            format="onnx",
            size_bytes=len(self._data),
            sha256=hashlib.sha256(self._data).hexdigest(),
            producer=" ".join(_texts(path, self._proto.producer_name, self._proto.producer_version)).strip(),
            inputs=tuple(_spec(self._onnx, value, path) for value in inputs),
            outputs=tuple(_spec(self._onnx, value, path) for value in graph.output),
            precision=_precision(self._onnx, graph),
            first_step=_first_step(graph, inputs[0].name) if inputs else "",
            metadata=_metadata(path, self._proto),
        )

    def fixed(self, name: str, shape: tuple[int, ...], constants: Mapping[str, np.ndarray]) -> bytes:
        given = next(one.shape for one in self.model.inputs if one.name == name)
        if given == shape and not constants and not self._merged:
            return self._data
        model = type(self._proto)()
        model.CopyFrom(self._proto)
        _drop_inputs(self._onnx, model.graph, name, constants)
        dims = model.graph.input[0].type.tensor_type.shape.dim
        for dim, size in zip(dims, shape, strict=True):
            dim.dim_value = size
        # The stored shapes were those of the old input.
        del model.graph.value_info[:]
        for output in model.graph.output:
            output.type.tensor_type.ClearField("shape")
        try:
            model = self._onnx.shape_inference.infer_shapes(model)
            return bytes(model.SerializeToString(deterministic=True))
        except Exception as error:  # Its errors have no common base.
            raise BundleError(
                f"{self.model.path}: the graph cannot be fixed to an input of {list(shape)}: {error}; export "
                f"it with that size"
            ) from None


def _parse(onnx: Any, data: bytes, path: Path) -> Any:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
        whole = bool(proto.graph.node and proto.graph.output and proto.ir_version)
    except Exception as error:  # google.protobuf's DecodeError, and what its implementations add
        raise BundleError(
            f"{path}: expected an ONNX file, got a damaged or truncated one, or another format ({error})"
        ) from None
    if not whole:
        raise BundleError(
            f"{path}: expected an ONNX file, got one without a graph: it is damaged, truncated or of another "
            f"format"
        )
    return proto


def _metadata(path: Path, proto: Any) -> dict[str, str]:
    pairs = [_texts(path, entry.key, entry.value) for entry in proto.metadata_props]
    return {pair[0]: pair[1] for pair in pairs}


def _texts(path: Path, *values: str | bytes) -> tuple[str, ...]:
    """Strings of the file. protobuf returns bytes if they are not UTF-8. Raises BundleError."""
    if not all(isinstance(value, str) for value in values):
        raise BundleError(f"{path}: expected an ONNX file with names in UTF-8: it is damaged")
    return tuple(map(str, values))


def _tensors(graph: Any, depth: int = 0) -> Iterator[Any]:
    """Every tensor of a graph, its nodes and nested graphs."""
    if depth > _MAX_DEPTH:
        raise BundleError(f"expected a graph nested at most {_MAX_DEPTH} deep, got more")
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node, depth)


def _node_tensors(nodes: Any, depth: int) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from _tensors(inner, depth + 1)


def _merge_weights(onnx: Any, proto: Any, path: Path, max_bytes: int) -> bool:
    """Replace weights in other files with their bytes. Returns whether there were any. Raises BundleError."""
    outside = [t for t in _tensors(proto.graph) if t.data_location == onnx.TensorProto.EXTERNAL]
    outside += [
        t
        for function in proto.functions
        for t in _node_tensors(function.node, 0)
        if t.data_location == onnx.TensorProto.EXTERNAL
    ]
    # Check all before reading the first.
    total = sum(file.stat().st_size for file in {_weight_file(tensor, path) for tensor in outside})
    if total > max_bytes:
        raise BundleError(
            f"{path}: expected weights of at most {max_bytes >> 20} MB beside the graph, got {total >> 20} "
            f"MB; --max-mb sets the limit, up to 2047"
        )
    for tensor in outside:
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.parent.resolve()))
        except Exception as error:  # onnx raises several kinds for a wrong offset, length or type
            raise BundleError(
                f"{path}: weights '{tensor.name}' cannot be read from their file: {error}"
            ) from None
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    return bool(outside)


def _weight_file(tensor: Any, path: Path) -> Path:
    """The file with a tensor's values, inside the folder of the model. Raises BundleError."""
    found = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    (location,) = _texts(path, found)
    folder = path.parent.resolve()
    try:
        file = (folder / location).resolve()
        if location and file.is_relative_to(folder) and file.is_file():
            return file
    except (OSError, ValueError, RuntimeError):  # a name too long, a NUL in it, a loop of links
        pass
    raise BundleError(
        f"{path}: expected the weights '{tensor.name}' in a file of its own folder, got {location!r:.200}; "
        f"put the file beside the model, or save the model as one file"
    )


def _spec(onnx: Any, value: Any, path: Path) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        raise BundleError(
            f"{path}: expected tensors as inputs and outputs, got another kind for '{value.name}'"
        )
    kind = value.type.tensor_type
    try:
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    except Exception:  # KeyError and others, for numbers that this onnx does not know
        dtype = f"type {kind.elem_type}"
    (name,) = _texts(path, value.name)
    shape = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim)
    return TensorSpec(name, shape, dtype)


def _precision(onnx: Any, graph: Any) -> str:
    if any(node.op_type in _QUANTIZED for node in graph.node):
        return "int8"
    halves = sum(weight.data_type == onnx.TensorProto.FLOAT16 for weight in graph.initializer)
    floats = sum(weight.data_type == onnx.TensorProto.FLOAT for weight in graph.initializer)
    return "fp16" if halves > floats else "fp32"


def _first_step(graph: Any, name: str) -> str:
    """The operator with which the graph first normalises its input, "" for none."""
    names = {name}
    for node in graph.node:
        if not names & set(node.input):
            continue
        if node.op_type in _SAME:
            names |= set(node.output)
        else:
            return str(node.op_type) if node.op_type in _NORMALISING else ""
    return ""


def _drop_inputs(onnx: Any, graph: Any, name: str, constants: Mapping[str, np.ndarray]) -> None:
    """Keep the image as the only input; the others become weights of the graph."""
    for other in graph.input:
        if other.name in constants:
            wanted = onnx.helper.tensor_dtype_to_np_dtype(other.type.tensor_type.elem_type)
            value = constants[other.name].astype(wanted)
            graph.initializer.append(onnx.numpy_helper.from_array(value, other.name))
    kept = next(value for value in graph.input if value.name == name)
    image_tensor = type(kept)()
    image_tensor.CopyFrom(kept)
    del graph.input[:]
    graph.input.append(image_tensor)
