"""Small .tflite graphs, made on the spot with the schema that LiteRT brings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

_TYPES = {"float32": 0, "int32": 2, "uint8": 3, "int8": 9}
_MEAN = 40


def mean_tflite(
    path: Path,
    shape: Sequence[int | str | None] = (1, 3, 8, 8),
    dtype: str = "float32",
    quantization: tuple[float, int] | None = None,
) -> Path:
    """images -> logits (1, 3): the mean of every channel. quantization: scale and zero point of both."""
    schema = schema_or_skip()
    model = schema.ModelT()
    model.version, model.description = 3, "mean"
    model.buffers = [schema.BufferT(), schema.BufferT()]
    model.buffers[1].data = np.frombuffer(np.array([2, 3], np.int32).tobytes(), np.uint8)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = _MEAN
    model.operatorCodes = [code]
    model.subgraphs = [_mean_graph(schema, shape, dtype, quantization)]
    path.write_bytes(packed(model))
    return path


def schema_or_skip() -> Any:
    """The module with LiteRT's schema."""
    return pytest.importorskip(
        "ai_edge_litert.schema_py_generated", reason="ai-edge-litert is not installed: make setup-test"
    )


def _mean_graph(
    schema: Any, shape: Sequence[int | str | None], dtype: str, quantization: tuple[float, int] | None
) -> Any:
    graph = schema.SubGraphT()
    graph.tensors = [
        tflite_tensor(schema, "images", shape, dtype, 0, quantization),
        tflite_tensor(schema, "axes", (2,), "int32", 1, None),
        tflite_tensor(schema, "logits", (1, 3), dtype, 0, quantization),
    ]
    graph.inputs, graph.outputs = np.array([0], np.int32), np.array([2], np.int32)
    mean = schema.OperatorT()
    mean.opcodeIndex = 0
    mean.inputs, mean.outputs = np.array([0, 1], np.int32), np.array([2], np.int32)
    mean.builtinOptionsType = schema.BuiltinOptions.ReducerOptions
    mean.builtinOptions = schema.ReducerOptionsT()
    graph.operators = [mean]
    return graph


def tflite_tensor(
    schema: Any,
    name: str,
    shape: Sequence[int | str | None],
    dtype: str,
    buffer: int,
    quantization: tuple[float, int] | None,
) -> Any:
    """A tensor for `SubGraphT.tensors`. A free dimension is None or a name, as in the ONNX cases."""
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.buffer = name, _TYPES[dtype], buffer
    sizes = [size if isinstance(size, int) else -1 for size in shape]
    tensor.shape = np.array([max(size, 1) for size in sizes], np.int32)
    if -1 in sizes:
        tensor.shapeSignature = np.array(sizes, np.int32)
    if quantization:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = np.array([quantization[0]], np.float32)
        tensor.quantization.zeroPoint = np.array([quantization[1]], np.int64)
    return tensor


def packed(model: Any) -> bytes:
    """The bytes of a model's file."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
