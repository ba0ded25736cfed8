"""Converts an ONNX graph to TFLite: fp32, or int8 as its quantizers (QuantizeLinear) say.

TFLite's images have the channels last: a tensor is kept in that order from one operator to the next, and
transposed where ONNX's order matters (a reshape, the inputs and outputs, which stay as in ONNX). A layer runs
in int8 if its inputs are quantized and its output is quantized at once; unsigned activations become signed
ones by a shift of 128.

Source: the operator definitions of TensorFlow Lite and its 8-bit quantization specification.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_vision.offline.onnx_writer import import_onnx
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.node_order import sorted_nodes
from edge_vision.optimize.tflite.file_writer import Quantization, TfliteWriter

_LAST, _FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
_NONE, _RELU, _RELU6 = 0, 1, 3
"""Of ActivationFunctionType."""
_SAME, _VALID = 0, 1
"""Of Padding."""
_LOWEST = float(np.finfo(np.float32).min)
_BINARY = {
    "Add": ("ADD", "AddOptions"),
    "Sum": ("ADD", "AddOptions"),
    "Mul": ("MUL", "MulOptions"),
    "Sub": ("SUB", "SubOptions"),
    "Div": ("DIV", "DivOptions"),
}
_UNARY: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Sigmoid": ("LOGISTIC", "", {}),
    "Relu": ("RELU", "", {}),
    "HardSwish": ("HARD_SWISH", "HardSwishOptions", {}),
    "Exp": ("EXP", "ExpOptions", {}),
    "Tanh": ("TANH", "", {}),
    "Sqrt": ("SQRT", "", {}),
}
_INT8_BINARY = ("Add", "Sum", "Mul")


@dataclass(frozen=True, slots=True)
class _Value:
    """A tensor of the file. last: whether it has the channels last, unlike ONNX's."""

    tensor: int
    last: bool = False
    quantization: Quantization | None = None


@dataclass(frozen=True, slots=True)
class _Weights:
    """Quantized weights of ONNX's shape. scale: one or one for each channel of the axis."""

    integers: np.ndarray
    scale: np.ndarray
    axis: int

    @property
    def real(self) -> np.ndarray:
        sides = [-1 if i == self.axis else 1 for i in range(self.integers.ndim)]
        scale = self.scale.reshape(sides) if self.scale.size > 1 else self.scale.reshape(())
        return np.asarray(self.integers * scale, np.float32)


def to_tflite(model: Any) -> bytes:
    """The TFLite file of a folded model with fixed dimensions, or of its QDQ model. The names, shapes and
    types of inputs and outputs stay.

    Raises OptimizeError for an operator that has no counterpart here, and if ai-edge-litert is missing.
    """
    return _Conversion(model).file()


class _Conversion:
    def __init__(self, model: Any) -> None:
        onnx = import_onnx()
        ordered = copy.deepcopy(model)
        del ordered.graph.node[:]
        ordered.graph.node.extend(sorted_nodes(model.graph))
        graph = onnx.shape_inference.infer_shapes(ordered, data_prop=True).graph
        values = (*graph.input, *graph.value_info, *graph.output)
        self._shapes = {one.name: [d.dim_value for d in one.type.tensor_type.shape.dim] for one in values}
        self._constants: dict[str, Any] = {
            one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer
        }
        self._read = onnx.helper.get_attribute_value
        self._readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._outputs = [one.name for one in graph.output]
        self._inputs = [one.name for one in graph.input if one.name not in self._constants]
        self._nodes = list(graph.node)
        self._writer = TfliteWriter()
        self._values: dict[str, _Value] = {
            name: _Value(self._writer.tensor(name, self._shapes[name])) for name in self._inputs
        }
        self._made: dict[tuple[int, str], _Value] = {}
        self._fused: set[str] = set()

    def file(self) -> bytes:
        """Raises OptimizeError."""
        unknown = sorted({node.op_type for node in self._nodes} - set(_OPERATORS))
        if unknown:
            raise OptimizeError(
                f"expected a graph of operators that can be converted to TFLite, got {', '.join(unknown)}; "
                f"export the model to TFLite with its own tools, or use the ONNX graph"
            )
        for node in self._nodes:
            if node.output[0] not in self._fused:
                _OPERATORS[node.op_type](self, node)
        inputs = [self._values[name].tensor for name in self._inputs]
        outputs = [self._output(name, inputs) for name in self._outputs]
        return self._writer.file(inputs, outputs)

    def _output(self, name: str, inputs: Sequence[int]) -> int:
        value = self._channels_first(self._float(self._values[name]))
        if value.tensor in inputs:
            value = self._reshaped(value, self._shapes[name], name)
        self._writer.rename(value.tensor, name)
        return value.tensor

    # Values in another form. Each is made once.

    def _once(self, value: _Value, form: str, make: Callable[[], _Value]) -> _Value:
        key = (value.tensor, form)
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _float(self, value: _Value) -> _Value:
        if value.quantization is None:
            return value

        def make() -> _Value:
            made = self._writer.tensor(f"{value.tensor}/float", self._writer.shape(value.tensor))
            self._writer.operator("DEQUANTIZE", [value.tensor], [made], "DequantizeOptions")
            return _Value(made, value.last)

        return self._once(value, "float", make)

    def _quantized(self, value: _Value, wanted: Quantization) -> _Value:
        if value.quantization == wanted:
            return value

        def make() -> _Value:
            made = self._writer.tensor(f"{value.tensor}/int8", self._writer.shape(value.tensor), wanted)
            self._writer.operator("QUANTIZE", [value.tensor], [made], "QuantizeOptions")
            return _Value(made, value.last, wanted)

        return self._once(value, f"int8 {wanted}", make)

    def _transposed(self, value: _Value, order: Sequence[int], last: bool) -> _Value:
        def make() -> _Value:
            shape = self._writer.shape(value.tensor)
            made = self._writer.tensor(
                f"{value.tensor}/transposed", [shape[i] for i in order], value.quantization
            )
            numbers = self._writer.constant("order", np.array(order, np.int32))
            self._writer.operator("TRANSPOSE", [value.tensor, numbers], [made], "TransposeOptions")
            return _Value(made, last, value.quantization)

        return self._once(value, f"transposed {tuple(order)}", make)

    def _channels_last(self, value: _Value) -> _Value:
        return value if value.last else self._transposed(value, _LAST, True)

    def _channels_first(self, value: _Value) -> _Value:
        return self._transposed(value, _FIRST, False) if value.last else value

    def _value(self, name: str) -> _Value:
        if name not in self._values:
            values = self._constants[name]
            real = values.real if isinstance(values, _Weights) else np.asarray(values, np.float32)
            return _Value(self._writer.constant(name, real))
        return self._values[name]

    def _reshaped(self, value: _Value, shape: Sequence[int], name: str) -> _Value:
        made = self._writer.tensor(name, shape, value.quantization)
        numbers = self._writer.constant("shape", np.array(shape, np.int32))
        self._writer.operator(
            "RESHAPE", [value.tensor, numbers], [made], "ReshapeOptions", {"newShape": list(shape)}
        )
        return _Value(made, False, value.quantization)

    # Attributes and constants of a node.

    def _get(self, node: Any, key: str, default: Any = None) -> Any:
        for one in node.attribute:
            if one.name == key:
                value = self._read(one)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def _numbers(self, node: Any, at: int) -> list[int] | None:
        """A constant input as integers; None if the node has none."""
        if at >= len(node.input) or not node.input[at]:
            return None
        return [int(one) for one in np.ravel(self._constant(node, at))]

    def _constant(self, node: Any, at: int) -> np.ndarray:
        found = self._constants.get(node.input[at])
        if found is None:
            raise _refused(node, f"a constant as input {at + 1}")
        return found.real if isinstance(found, _Weights) else np.asarray(found)

    def _target(self, node: Any) -> Quantization | None:
        """How the only output is quantized at once, after a fused activation; None if it is also read
        otherwise."""
        name = node.output[0]
        readers = self._readers.get(name, [])
        if name in self._outputs or not readers or any(one.op_type != "QuantizeLinear" for one in readers):
            return None
        found = {self._parameters(one) for one in readers}
        return found.pop() if len(found) == 1 else None

    def _parameters(self, node: Any) -> Quantization:
        """Of a quantizer, as signed integers."""
        scale = np.ravel(self._constants[node.input[1]])
        zero = np.ravel(self._constants[node.input[2]]) if len(node.input) > 2 else np.zeros(1, np.uint8)
        if scale.size != 1 or zero.dtype not in (np.uint8, np.int8):
            raise _refused(node, "one scale of 8-bit activations")
        return Quantization((float(scale[0]),), int(zero[0]) - 128 * (zero.dtype == np.uint8))

    def _set(self, node: Any, value: _Value) -> None:
        self._values[node.output[0]] = value

    def _new(self, node: Any, shape: Sequence[int], last: bool, quantization: Quantization | None) -> _Value:
        value = _Value(self._writer.tensor(node.output[0], shape, quantization), last, quantization)
        self._set(node, value)
        return value

    # Operators.

    def quantize(self, node: Any) -> None:
        if node.input[0] in self._constants and node.input[0] not in self._values:
            raise _refused(node, "an activation to quantize")
        self._set(node, self._quantized(self._values[node.input[0]], self._parameters(node)))

    def dequantize(self, node: Any) -> None:
        """An activation stays quantized until an operator reads floats."""
        name = node.input[0]
        if name in self._values:
            self._set(node, self._values[name])
            return
        integers, scale = self._constants[name], np.ravel(self._constants[node.input[1]])
        zero = np.ravel(self._constants[node.input[2]]) if len(node.input) > 2 else np.zeros(1)
        if integers.dtype == np.uint8 and np.all(zero == 128):
            integers, zero = (integers.astype(np.int16) - 128).astype(np.int8), np.zeros(1)
        if integers.dtype not in (np.int8, np.int32) or zero.any():
            raise _refused(node, "signed weights around zero")
        self._constants[node.output[0]] = _Weights(integers, scale, self._get(node, "axis", 1))

    def conv(self, node: Any) -> None:
        weights, groups = self._constants.get(node.input[1]), self._get(node, "group", 1)
        shape = self._shapes[node.input[0]]
        if weights is None or len(shape) != 4:
            raise _refused(node, "constant weights of two dimensions")
        channels, kernel = shape[1], self._weight_shape(weights)[2:]
        depthwise = groups == channels and self._weight_shape(weights)[1] == 1 and groups > 1
        value, padding = self._padded(node, self._channels_last(self._values[node.input[0]]), kernel, 0.0)
        order, axis = ((1, 2, 3, 0), 3) if depthwise else ((0, 2, 3, 1), 0)
        strides = self._get(node, "strides", [1, 1])
        dilations = self._get(node, "dilations", [1, 1])
        options = {"padding": padding, "strideH": strides[0], "strideW": strides[1]}
        options |= {"dilationHFactor": dilations[0], "dilationWFactor": dilations[1]}
        if depthwise:
            options["depthMultiplier"] = self._weight_shape(weights)[0] // channels
        kind = "DepthwiseConv2D" if depthwise else "Conv2D"
        name = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        self._layer(node, value, name, f"{kind}Options", options, (order, axis), last=True)

    @staticmethod
    def _weight_shape(weights: Any) -> Sequence[int]:
        return tuple((weights.integers if isinstance(weights, _Weights) else weights).shape)

    def gemm(self, node: Any) -> None:
        """A product of an activation and constant weights, with a bias."""
        weights = self._constants.get(node.input[1])
        plain = self._get(node, "alpha", 1.0) == self._get(node, "beta", 1.0) == 1.0
        if weights is None or len(self._weight_shape(weights)) != 2 or not plain or self._get(node, "transA"):
            raise _refused(node, "constant weights of two dimensions, and no factors")
        transposed = node.op_type == "Gemm" and self._get(node, "transB", 0)
        value = self._channels_first(self._values[node.input[0]])
        options = {"keepNumDims": len(self._shapes[node.output[0]]) > 2}
        order = ((0, 1), 0) if transposed else ((1, 0), 0)
        self._layer(node, value, "FULLY_CONNECTED", "FullyConnectedOptions", options, order, last=False)

    def _layer(
        self,
        node: Any,
        value: _Value,
        op: str,
        table: str,
        options: dict[str, Any],
        order: tuple[Sequence[int], int],
        last: bool,
    ) -> None:
        """A layer with weights: in int8 if all is quantized. order: of the weights' dimensions, and the axis
        of the output channels then."""
        options["fusedActivationFunction"] = self._fuse(node)
        weights, target = self._constants[node.input[1]], self._target(node)
        bias = self._bias(node, weights, order)
        permuted, axis = order
        shape = self._shapes[node.output[0]]
        shape = [shape[i] for i in _LAST] if last else shape
        if isinstance(weights, _Weights) and value.quantization and target:
            scale = tuple(float(one) for one in np.broadcast_to(weights.scale, bias.shape[0]))
            stored = self._writer.constant(
                node.input[1], weights.integers.transpose(permuted), Quantization(scale, 0, axis)
            )
            steps = np.float64(value.quantization.scale[0]) * np.array(scale)
            limits = np.iinfo(np.int32)
            rounded = np.clip(np.rint(bias / steps), limits.min, limits.max).astype(np.int32)
            biases = self._writer.constant(f"{node.name}/bias", rounded, Quantization(tuple(steps.tolist())))
        else:
            real = weights.real if isinstance(weights, _Weights) else np.asarray(weights, np.float32)
            stored = self._writer.constant(node.input[1], real.transpose(permuted))
            biases = self._writer.constant(f"{node.name}/bias", bias)
            value, target = self._float(value), None
        made = self._new(node, shape, last, target)
        self._writer.operator(op, [value.tensor, stored, biases], [made.tensor], table, options)

    def _bias(self, node: Any, weights: Any, order: tuple[Sequence[int], int]) -> np.ndarray:
        if len(node.input) > 2 and node.input[2]:
            return np.asarray(self._constant(node, 2), np.float32).reshape(-1)
        permuted, axis = order
        return np.zeros(self._weight_shape(weights)[permuted[axis]], np.float32)

    def _fuse(self, node: Any) -> int:
        """The activation that alone reads the node's output; the node then has its output."""
        readers = self._readers.get(node.output[0], [])
        if len(readers) != 1 or node.output[0] in self._outputs:
            return _NONE
        kind = self._activation(readers[0])
        if kind != _NONE:
            node.output[0] = readers[0].output[0]
            self._fused.add(node.output[0])
        return kind

    def _activation(self, node: Any) -> int:
        if node.op_type == "Relu":
            return _RELU
        return _RELU6 if node.op_type == "Clip" and self._limits(node) == (0.0, 6.0) else _NONE

    def _limits(self, node: Any) -> tuple[float, float]:
        low, high = (
            float(self._constant(node, at)) if len(node.input) > at and node.input[at] else default
            for at, default in ((1, -math.inf), (2, math.inf))
        )
        return low, high

    def _padded(self, node: Any, value: _Value, kernel: Sequence[int], fill: float) -> tuple[_Value, int]:
        """The image, padded where TFLite has no such padding, and the padding left to do."""
        mode = self._get(node, "auto_pad", "NOTSET")
        sides, strides = self._shapes[node.input[0]][2:], self._get(node, "strides", [1, 1])
        dilations = self._get(node, "dilations", [1, 1])
        totals = [
            max(0, (-(-side // stride) - 1) * stride + (width - 1) * dilation + 1 - side)
            for side, stride, width, dilation in zip(sides, strides, kernel, dilations, strict=True)
        ]
        same = [*(total // 2 for total in totals), *(total - total // 2 for total in totals)]
        pads = {"SAME_UPPER": same, "SAME_LOWER": [*same[2:], *same[:2]], "VALID": [0] * 4}.get(
            mode, list(self._get(node, "pads", [0] * 4))
        )
        if not any(pads):
            return value, _VALID
        return (value, _SAME) if pads == same else (self._pad(value, pads, fill), _VALID)

    def _pad(self, value: _Value, pads: Sequence[int], fill: float) -> _Value:
        top, left, bottom, right = pads
        value = value if fill == 0.0 else self._float(value)
        shape = self._writer.shape(value.tensor)
        sides = [shape[0], shape[1] + top + bottom, shape[2] + left + right, shape[3]]
        made = self._writer.tensor(f"{value.tensor}/padded", sides, value.quantization)
        numbers = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        inputs = [value.tensor, self._writer.constant("pads", numbers)]
        if fill == 0.0:
            self._writer.operator("PAD", inputs, [made], "PadOptions")
        else:
            inputs.append(self._writer.constant("fill", np.array(fill, np.float32)))
            self._writer.operator("PADV2", inputs, [made], "PadV2Options")
        return _Value(made, True, value.quantization)

    def pool(self, node: Any) -> None:
        kernel, largest = self._get(node, "kernel_shape"), node.op_type == "MaxPool"
        if self._get(node, "ceil_mode", 0) or len(node.output) > 1:
            raise _refused(node, "no ceil_mode and one output")
        fill = _LOWEST if largest else 0.0
        value, padding = self._padded(node, self._channels_last(self._values[node.input[0]]), kernel, fill)
        if not largest and padding == _VALID and any(self._get(node, "pads", [0])):
            raise _refused(node, "padding as SAME_UPPER")
        if not largest and padding == _SAME and self._get(node, "count_include_pad", 0):
            raise _refused(node, "count_include_pad 0")
        strides = self._get(node, "strides", [1, 1])
        options = {"padding": padding, "strideH": strides[0], "strideW": strides[1]}
        options |= {"filterHeight": kernel[0], "filterWidth": kernel[1]}
        shape = self._shapes[node.output[0]]
        made = self._new(node, [shape[i] for i in _LAST], True, value.quantization)
        op = "MAX_POOL_2D" if largest else "AVERAGE_POOL_2D"
        self._writer.operator(op, [value.tensor], [made.tensor], "Pool2DOptions", options)

    def mean(self, node: Any) -> None:
        """Over rows and columns."""
        value, target = self._channels_last(self._values[node.input[0]]), self._target(node)
        if not (value.quantization and target):
            value, target = self._float(value), None
        made = self._new(node, [1, 1, 1, self._shapes[node.output[0]][1]], True, target)
        axes = self._writer.constant("axes", np.array([1, 2], np.int32))
        self._writer.operator(
            "MEAN", [value.tensor, axes], [made.tensor], "ReducerOptions", {"keepDims": True}
        )

    def binary(self, node: Any) -> None:
        if len(node.input) != 2:
            raise _refused(node, "two inputs")
        values = [self._values.get(name) for name in node.input]
        last = any(value is not None and value.last for value in values)
        found = [self._operand(name, last) for name in node.input]
        target = self._target(node) if node.op_type in _INT8_BINARY else None
        if not (target and all(value.quantization for value in found)):
            found, target = [self._float(value) for value in found], None
        shape = self._shapes[node.output[0]]
        op, table = _BINARY[node.op_type]
        activation = self._fuse(node) if target is None else _NONE
        made = self._new(node, [shape[i] for i in _LAST] if last else shape, last, target)
        options = {"fusedActivationFunction": activation}
        self._writer.operator(op, [value.tensor for value in found], [made.tensor], table, options)

    def _operand(self, name: str, last: bool) -> _Value:
        """An input of an elementwise operator; a constant with the same order of dimensions."""
        if name in self._values:
            value = self._values[name]
            return self._channels_last(value) if last else value
        values = self._constants[name]
        real = values.real if isinstance(values, _Weights) else np.asarray(values, np.float32)
        if last and real.ndim > 1:
            real = real.reshape([1] * (4 - real.ndim) + list(real.shape)).transpose(_LAST)
        elif last and real.size > 1:
            raise OptimizeError(f"{name}: expected a constant for each channel, got one for each column")
        return _Value(self._writer.constant(name, real), last)

    def unary(self, node: Any) -> None:
        op, table, options = _UNARY[node.op_type]
        self._elementwise(node, op, table, options)

    def _elementwise(
        self, node: Any, op: str, table: str, options: dict[str, Any], int8: bool = False
    ) -> None:
        value, target = self._values[node.input[0]], self._target(node) if int8 else None
        if not (target and value.quantization):
            value, target = self._float(value), None
        made = self._new(node, self._writer.shape(value.tensor), value.last, target)
        self._writer.operator(op, [value.tensor], [made.tensor], table, options)

    def leaky_relu(self, node: Any) -> None:
        options = {"alpha": float(self._get(node, "alpha", 0.01))}
        self._elementwise(node, "LEAKY_RELU", "LeakyReluOptions", options, int8=True)

    def clip(self, node: Any) -> None:
        kind = self._activation(node)
        if kind == _NONE:
            raise _refused(node, "limits of 0 and 6")
        self._elementwise(node, "RELU6", "", {})

    def softmax(self, node: Any) -> None:
        value = self._float(self._channels_first(self._values[node.input[0]]))
        shape = self._writer.shape(value.tensor)
        if self._get(node, "axis", -1) % len(shape) != len(shape) - 1:
            raise _refused(node, "the last axis")
        made = self._new(node, shape, False, None)
        self._writer.operator("SOFTMAX", [value.tensor], [made.tensor], "SoftmaxOptions", {"beta": 1.0})

    def concat(self, node: Any) -> None:
        found = [self._value(name) for name in node.input]
        last = any(value.last for value in found)
        if last:
            found = [self._channels_last(value) for value in found]
        target = self._target(node)
        if target and all(value.quantization for value in found):
            found = [self._quantized(value, target) for value in found]
        else:
            found, target = [self._float(value) for value in found], None
        shape = self._shapes[node.output[0]]
        axis = self._get(node, "axis") % len(shape)
        made = self._new(node, [shape[i] for i in _LAST] if last else shape, last, target)
        options = {"axis": _LAST.index(axis) if last else axis}
        self._writer.operator(
            "CONCATENATION", [one.tensor for one in found], [made.tensor], "ConcatenationOptions", options
        )

    def split(self, node: Any) -> None:
        value = self._values[node.input[0]]
        shapes = [self._shapes[name] for name in node.output]
        axis = self._get(node, "axis", 0) % len(shapes[0])
        sizes = [shape[axis] for shape in shapes]
        if value.last:
            shapes = [[shape[i] for i in _LAST] for shape in shapes]
        parts = [
            _Value(self._writer.tensor(name, shape, value.quantization), value.last, value.quantization)
            for name, shape in zip(node.output, shapes, strict=True)
        ]
        self._values.update(zip(node.output, parts, strict=True))
        numbers = self._writer.constant("sizes", np.array(sizes, np.int32))
        along = np.array(_LAST.index(axis) if value.last else axis, np.int32)
        inputs = [value.tensor, numbers, self._writer.constant("axis", along)]
        options = {"numSplits": len(sizes)}
        self._writer.operator("SPLIT_V", inputs, [one.tensor for one in parts], "SplitVOptions", options)

    def resize(self, node: Any) -> None:
        mode = self._get(node, "coordinate_transformation_mode", "half_pixel")
        linear = self._get(node, "mode", "nearest") == "linear"
        (height, width), sides = self._shapes[node.output[0]][2:], self._shapes[node.input[0]][2:]
        whole = height % sides[0] == 0 and width % sides[1] == 0
        floor = self._get(node, "nearest_mode", "round_prefer_floor") == "floor"
        nearest = whole and (mode == "half_pixel" or (mode == "asymmetric" and floor))
        if not (nearest or (linear and mode in ("half_pixel", "asymmetric", "align_corners"))):
            raise _refused(node, "linear, or nearest with a whole factor")
        value = self._channels_last(self._values[node.input[0]])
        op = "RESIZE_BILINEAR" if linear else "RESIZE_NEAREST_NEIGHBOR"
        table = "ResizeBilinearOptions" if linear else "ResizeNearestNeighborOptions"
        options = {"alignCorners": mode == "align_corners", "halfPixelCenters": mode == "half_pixel"}
        channels = self._shapes[node.output[0]][1]
        made = self._new(node, [1, height, width, channels], True, value.quantization)
        size = self._writer.constant("size", np.array([height, width], np.int32))
        self._writer.operator(op, [value.tensor, size], [made.tensor], table, options)

    def reshape(self, node: Any) -> None:
        """Also Flatten, Squeeze, Unsqueeze."""
        value = self._channels_first(self._values[node.input[0]])
        self._set(node, self._reshaped(value, self._shapes[node.output[0]], node.output[0]))

    def transpose(self, node: Any) -> None:
        value = self._values[node.input[0]]
        rank = len(self._shapes[node.input[0]])
        order = list(self._get(node, "perm", list(range(rank))[::-1]))
        if not value.last and tuple(order) == _FIRST:
            self._set(node, _Value(value.tensor, True, value.quantization))
            return
        if value.last:
            order = [_LAST.index(axis) for axis in order]
        same = order == list(range(rank))
        plain = _Value(value.tensor, False, value.quantization)
        self._set(node, plain if same else self._transposed(value, order, False))

    def identity(self, node: Any) -> None:
        self._set(node, self._value(node.input[0]))


_OPERATORS: dict[str, Callable[[_Conversion, Any], None]] = {
    "AveragePool": _Conversion.pool,
    "Clip": _Conversion.clip,
    "Concat": _Conversion.concat,
    "Conv": _Conversion.conv,
    "DequantizeLinear": _Conversion.dequantize,
    "Flatten": _Conversion.reshape,
    "Gemm": _Conversion.gemm,
    "GlobalAveragePool": _Conversion.mean,
    "Identity": _Conversion.identity,
    "LeakyRelu": _Conversion.leaky_relu,
    "MatMul": _Conversion.gemm,
    "MaxPool": _Conversion.pool,
    "QuantizeLinear": _Conversion.quantize,
    "Reshape": _Conversion.reshape,
    "Resize": _Conversion.resize,
    "Softmax": _Conversion.softmax,
    "Split": _Conversion.split,
    "Squeeze": _Conversion.reshape,
    "Transpose": _Conversion.transpose,
    "Unsqueeze": _Conversion.reshape,
    **dict.fromkeys(_BINARY, _Conversion.binary),
    **dict.fromkeys(_UNARY, _Conversion.unary),
}


def _refused(node: Any, expected: str) -> OptimizeError:
    return OptimizeError(
        f"{node.name or node.op_type}: expected {expected}, to be converted to TFLite, got another "
        f"{node.op_type}; use the ONNX graph"
    )
