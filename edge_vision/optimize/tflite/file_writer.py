"""Writes a TFLite file operator by operator, with the schema in the package ai-edge-litert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_vision.optimize.errors import OptimizeError

_TYPES = {"float32": "FLOAT32", "int8": "INT8", "int32": "INT32"}


@dataclass(frozen=True, slots=True)
class Quantization:
    """real = scale * (integer - zero). scale: one number, or one for each index of the axis."""

    scale: tuple[float, ...]
    zero: int = 0
    axis: int = 0


def import_schema() -> Any:
    """The module with the schema. Raises OptimizeError if it is not installed."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise OptimizeError(
            f"writing a TFLite graph expects the package ai-edge-litert, got: {error}; install it: "
            f"pip install ai-edge-litert"
        ) from None
    return schema_py_generated


class TfliteWriter:
    """Tensors are numbers, as in the file."""

    def __init__(self) -> None:
        """Raises OptimizeError if the schema is not installed."""
        self._schema = import_schema()
        self._buffers = [self._schema.BufferT()]  # The first one is that of tensors without values.
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[str, int] = {}
        self._constants: dict[tuple[Any, ...], int] = {}

    def tensor(
        self, name: str, shape: Sequence[int], quantization: Quantization | None = None, dtype: str = ""
    ) -> int:
        """A new tensor. dtype: by default int8 if quantized, else float32."""
        one = self._schema.TensorT()
        one.name, one.shape, one.buffer = name, list(shape), 0
        dtype = dtype or ("int8" if quantization else "float32")
        one.type = getattr(self._schema.TensorType, _TYPES[dtype])
        if quantization:
            one.quantization = self._schema.QuantizationParametersT()
            one.quantization.scale = list(quantization.scale)
            one.quantization.zeroPoint = [quantization.zero] * len(quantization.scale)
            one.quantization.quantizedDimension = quantization.axis
        self._tensors.append(one)
        return len(self._tensors) - 1

    def constant(self, name: str, values: np.ndarray, quantization: Quantization | None = None) -> int:
        """The tensor of a constant: float32, int32 or int8. Equal ones share a tensor."""
        values = np.ascontiguousarray(values)
        data = values.tobytes()
        key = (data, values.shape, values.dtype.name, quantization)
        if key not in self._constants:
            buffer = self._schema.BufferT()
            buffer.data = np.frombuffer(data, np.uint8)
            self._buffers.append(buffer)
            self._constants[key] = self.tensor(name, values.shape, quantization, values.dtype.name)
            self._tensors[self._constants[key]].buffer = len(self._buffers) - 1
        return self._constants[key]

    def operator(
        self,
        op: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: str = "",
        values: Mapping[str, Any] = {},
    ) -> None:
        """Add an operator. op: of BuiltinOperator. options: name of its table of options, with values."""
        if op not in self._codes:
            self._codes[op] = len(self._codes)
        one = self._schema.OperatorT()
        one.opcodeIndex, one.inputs, one.outputs = self._codes[op], list(inputs), list(outputs)
        if options:
            one.builtinOptionsType = getattr(self._schema.BuiltinOptions, options)
            one.builtinOptions = getattr(self._schema, f"{options}T")()
            for key, value in values.items():
                setattr(one.builtinOptions, key, value)
        self._operators.append(one)

    def shape(self, tensor: int) -> list[int]:
        """The shape of a tensor."""
        return list(self._tensors[tensor].shape)

    def rename(self, tensor: int, name: str) -> None:
        """Give a tensor another name."""
        self._tensors[tensor].name = name

    def file(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The content of the file."""
        import flatbuffers

        schema = self._schema
        graph, model = schema.SubGraphT(), schema.ModelT()
        graph.name, graph.tensors, graph.operators = "main", self._tensors, self._operators
        graph.inputs, graph.outputs = list(inputs), list(outputs)
        model.version, model.description = 3, "edge_vision"
        model.subgraphs, model.buffers, model.operatorCodes = [graph], self._buffers, []
        for op in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode, code.version = getattr(schema.BuiltinOperator, op), 1
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            model.operatorCodes.append(code)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())
