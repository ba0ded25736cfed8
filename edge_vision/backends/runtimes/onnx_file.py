"""Checks an ONNX file before a runtime opens it.

An ONNX graph may have its weights in other files, at any path. A runtime that is given the bytes instead of
the file still follows such a path (OpenVINO 2026.4 even an absolute one). A bundle's graph is one file with a
verified hash, so its weights must not come from other files. The `onnx` package is not a dependency at run
time, so the few relevant fields are found by walking the protobuf wire format.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

from edge_vision.errors import BackendError

# Message -> field number -> nested message, from onnx.proto: every path from a model to a tensor.
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_MODEL_GRAPH = 7
MAX_BYTES = 2**31 - 1
"""Of one file: the limit of the formats ONNX and TensorFlow Lite."""
_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 13, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 32
_MAX_KEY = 2**32 - 1


def check_onnx(path: Path) -> Path:
    """The path of a complete ONNX file.

    Raises BackendError if it is not an ONNX file or has weights in other files.
    """
    try:
        with path.open("rb") as file:
            # Not closed explicitly: a traceback may still reference views of it.
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes > MAX_BYTES:
                raise BackendError(too_large(path, size_bytes))
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        external = _has_external_weights(data, "model")
        # Without a graph, a runtime may read the file as another format.
        if all(number != _MODEL_GRAPH for number, _, _ in _fields(data)):
            raise ValueError("it contains no graph")
    except OSError as error:
        raise BackendError(f"cannot read {path}: {error.strerror}: fetch the bundle again") from error
    except (IndexError, ValueError) as error:
        raise BackendError(
            f"{path} is no ONNX file, or is damaged ({error}): fetch the bundle again"
        ) from error
    if external:
        raise BackendError(
            f"{path} keeps weights in other files, which a bundle may not: save the graph as one file "
            f"(onnx.save_model with save_as_external_data=False)"
        )
    return path


def _has_external_weights(message: memoryview, kind: str, depth: int = 0) -> bool:
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested more than {_MAX_DEPTH} deep")
    for number, wire, value in _fields(message):
        if kind == "tensor" and number in (_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION):
            # data_location 0 means inside this file, as does its absence.
            if value != 0:
                return True
        elif wire == _BYTES and number in _INSIDE[kind]:
            assert isinstance(value, memoryview)
            if _has_external_weights(value, _INSIDE[kind][number], depth + 1):
                return True
    return False


def too_large(path: Path, size_bytes: int) -> str:
    """The error for a graph file beyond MAX_BYTES."""
    return f"{path} has {size_bytes / 1e9:.1f} GB, one file of a graph has at most 2.1: use a smaller model"


def _fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """(field number, wire type, value) of every field; fixed-size numbers as bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key > _MAX_KEY:  # protobuf drops the upper bits, which would hide a field here.
            raise ValueError("a field number is too large")
        wire = key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, wire, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if wire == _BYTES:
            size, at = _varint(message, at)
        if size is None or at + size > len(message):
            raise ValueError("a field does not fit")
        yield key >> 3, wire, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long")
