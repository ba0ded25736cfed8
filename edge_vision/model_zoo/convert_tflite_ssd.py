"""Converts an SSD from TensorFlow Lite to ONNX with the same input, outputs and names, for all runtimes.

Weights stored as float16 are converted to float32, in which TensorFlow Lite computes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_vision.errors import BundleError
from edge_vision.model_zoo.tflite_reader import Operator, Table, TfliteGraph, read_tflite
from edge_vision.offline.onnx_writer import OnnxWriter

_SAME = 0
_NO_ACTIVATION, _RELU6 = 0, 3


def convert(tflite: bytes, name: str) -> bytes:
    """The serialised ONNX model of a .tflite file. The input remains (1, h, w, 3).

    Raises BundleError if the graph contains an unsupported operation.
    """
    return _Converter(read_tflite(tflite), name).convert()


class _Converter:
    """Writes the operations in the file's order. Feature maps are NCHW, boxes are rows."""

    def __init__(self, graph: TfliteGraph, name: str) -> None:
        self._graph = graph
        self._writer = OnnxWriter(name)
        self._names: dict[int, str] = {}
        self._rows: set[int] = set()
        self._constants = {i: t.values for i, t in enumerate(graph.tensors) if t.values is not None}

    def convert(self) -> bytes:
        (image,) = self._graph.inputs
        name = self._graph.tensors[image].name
        self._names[image] = self._writer.node("Transpose", [name], f"{name}/nchw", perm=[0, 3, 1, 2])
        for operator in self._graph.operators:
            if operator.op not in _WRITE:
                raise BundleError(f"expected one of {', '.join(_WRITE)} in the graph, got {operator.op}")
            _WRITE[operator.op](self, operator)
        shapes = {self._graph.tensors[i].name: self._graph.tensors[i].shape for i in self._graph.outputs}
        return self._writer.model({name: self._graph.tensors[image].shape}, shapes)

    def _dequantize(self, operator: Operator) -> None:
        self._constants[operator.outputs[0]] = self._constants[operator.inputs[0]].astype(np.float32)

    def _convolution(self, operator: Operator) -> None:
        depthwise = operator.op == "DEPTHWISE_CONV_2D"
        options = _options(operator)
        image, kernel, bias = operator.inputs
        weights = self._constants[kernel]
        # (out, h, w, in), or (1, h, w, out) for a depthwise convolution.
        weights = weights.transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
        if options.scalar(0, "b") != _SAME:
            raise BundleError(f"convolution {self._output(operator)}: expected SAME padding, got another")
        self._activated(
            "Conv",
            [self._names[image], self._weight(kernel, weights), self._weight(bias, self._constants[bias])],
            operator,
            options.scalar(4 if depthwise else 3, "b"),
            auto_pad="SAME_UPPER",
            group=weights.shape[0] if depthwise else 1,
            kernel_shape=list(weights.shape[2:]),
            strides=[options.scalar(2, "i"), options.scalar(1, "i")],
        )

    def _add(self, operator: Operator) -> None:
        names = [self._names[i] for i in operator.inputs]
        self._activated("Add", names, operator, _options(operator).scalar(0, "b"))

    def _reshape(self, operator: Operator) -> None:
        """Reshapes a feature map to rows, one per anchor, in the order of NHWC; or rows to other rows."""
        source, output = operator.inputs[0], self._output(operator)
        rows = self._names[source]
        if source not in self._rows:
            rows = self._writer.node("Transpose", [rows], f"{output}/nhwc", perm=[0, 2, 3, 1])
        self._rows.add(operator.outputs[0])
        shape = np.array(self._graph.tensors[operator.outputs[0]].shape, np.int64)
        self._emit("Reshape", [rows, self._writer.weight(f"{output}/shape", shape)], operator)

    def _concatenation(self, operator: Operator) -> None:
        if not self._rows.issuperset(operator.inputs):
            raise BundleError(f"{self._output(operator)}: expected a concatenation of rows, got feature maps")
        self._rows.add(operator.outputs[0])
        names = [self._names[i] for i in operator.inputs]
        self._emit("Concat", names, operator, axis=_options(operator).scalar(0, "i"))

    def _activated(
        self, op: str, inputs: list[str], operator: Operator, activation: int, **attributes: object
    ) -> None:
        if activation not in (_NO_ACTIVATION, _RELU6):
            raise BundleError(f"{self._output(operator)}: expected no activation or ReLU6, got {activation}")
        if activation == _NO_ACTIVATION:
            return self._emit(op, inputs, operator, **attributes)
        output = self._output(operator)
        raw = self._writer.node(op, inputs, f"{output}/raw", **attributes)
        self._names[operator.outputs[0]] = self._writer.relu6(raw, output)

    def _emit(self, op: str, inputs: list[str], operator: Operator, **attributes: object) -> None:
        self._names[operator.outputs[0]] = self._writer.node(op, inputs, self._output(operator), **attributes)

    def _output(self, operator: Operator) -> str:
        return self._graph.tensors[operator.outputs[0]].name

    def _weight(self, number: int, values: np.ndarray) -> str:
        return self._writer.weight(f"{self._graph.tensors[number].name}/{number}", values)


_WRITE: dict[str, Callable[[_Converter, Operator], None]] = {
    "DEQUANTIZE": _Converter._dequantize,
    "CONV_2D": _Converter._convolution,
    "DEPTHWISE_CONV_2D": _Converter._convolution,
    "ADD": _Converter._add,
    "RESHAPE": _Converter._reshape,
    "CONCATENATION": _Converter._concatenation,
}


def _options(operator: Operator) -> Table:
    if operator.options is None:
        raise BundleError(f"operation {operator.op}: expected options, got none")
    return operator.options
