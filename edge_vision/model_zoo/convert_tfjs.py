"""Converts TensorFlow.js graph models to ONNX, with NumPy and onnx only.

TensorFlow's feature maps are NHWC, and those of a model that once was in PyTorch are transposed before and
after each convolution. Here all feature maps are NCHW, and a transposition only renames their axes, so none
remains between convolutions. Paddings become part of the next convolution or pooling. Resizings are by a
factor, so the graph accepts other image sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_vision.errors import BundleError
from edge_vision.model_zoo.tfjs_reader import TfjsModel, TfjsNode
from edge_vision.offline.onnx_writer import OnnxWriter

NHWC = (0, 2, 3, 1)
"""Of each axis in TensorFlow, the axis in ONNX."""
NCHW = (0, 1, 2, 3)
_NO_PADS = (0, 0, 0, 0)
_ONNX_TYPES = {"DT_FLOAT": 1, "DT_INT32": 6, "DT_BOOL": 9}


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor in the ONNX graph.

    order: the ONNX axis of each axis in TensorFlow; empty for the same axes. pads, pad_value: top, left,
    bottom, right, which the reader has to add. stride: pixels of the image for each cell.
    """

    name: str
    order: tuple[int, ...] = ()
    pads: tuple[int, ...] = _NO_PADS
    pad_value: float = 0.0
    stride: float = 1.0


class TfjsConverter:
    """Writes nodes once, after their inputs, from the image to what is requested.

    image: the TensorFlow node whose output is the image; order: NHWC or NCHW. size_px: side of the image in
    the TensorFlow graph. names: names in ONNX, by that in TensorFlow. constants: replaced values.
    """

    def __init__(
        self,
        model: TfjsModel,
        name: str,
        image: str,
        order: tuple[int, ...],
        size_px: int,
        names: Mapping[str, str] | None = None,
        constants: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.writer = OnnxWriter(name)
        self._nodes, self._size_px = model.nodes, size_px
        self._weights = {**model.weights, **(constants or {})}
        self._names = {image: "images", **(names or {})}
        self._done: dict[str, tuple[_Tensor, ...]] = {image: (_Tensor("images", order),)}

    def tensor(self, name: str, transposed: str = "") -> str:
        """The ONNX name of a TensorFlow output, with the axes that it has there.

        transposed: name of the transposition that this may need.
        """
        tensor = self._padded(self._emit(name))
        if tensor.order in ((), tuple(range(len(tensor.order)))):
            return tensor.name
        name = transposed or f"{tensor.name}/transposed"
        if name not in self._names:
            self._names[name] = self.writer.node("Transpose", [tensor.name], name, perm=list(tensor.order))
        return name

    def feature_map(self, name: str) -> str:
        """The ONNX name of a feature map that TensorFlow has in NHWC, (1, channels, h, w) in ONNX."""
        return self._padded(self._map(name)).name

    def model(self, size_px: int, outputs: Mapping[str, Sequence[int]]) -> bytes:
        """The serialised ONNX model of what was requested. outputs: shapes by name."""
        return self.writer.model({"images": (1, 3, size_px, size_px)}, outputs)

    def _emit(self, name: str) -> _Tensor:
        base, _, number = name.partition(":")
        if base not in self._done:
            node = self._nodes[base]
            if node.op not in _WRITE:
                raise BundleError(f"node {base}: expected one of {', '.join(_WRITE)}, got {node.op}")
            written = _WRITE[node.op](self, node)
            self._done[base] = written if isinstance(written, tuple) else (written,)
        return self._done[base][int(number or 0)]

    def _name(self, node: TfjsNode) -> str:
        return self._names.get(node.name, node.name)

    def _constant(self, name: str) -> np.ndarray:
        """The value of an input that is a constant, or computed from constants."""
        if name in self._weights:
            return self._weights[name]
        node = self._nodes[name]
        if node.op == "Identity":
            return self._constant(node.inputs[0])
        values = [self._constant(one) for one in node.inputs]
        if node.op in ("Add", "AddV2"):
            return np.asarray(values[0] + values[1])
        if node.op == "SparseToDense" and not values[0].size:
            return np.full(values[1], values[3])
        raise BundleError(f"node {name}: expected a constant, got {node.op}")

    def _ints(self, node: TfjsNode, values: Any, suffix: str) -> str:
        """A new int64 constant, such as a shape."""
        return self.writer.weight(f"{self._name(node)}/{suffix}", np.asarray(values, np.int64))

    def _map(self, name: str) -> _Tensor:
        """A feature map that TensorFlow has in NHWC, in NCHW."""
        tensor = self._emit(name)
        if tensor.order == NHWC:
            return tensor
        rows = self.tensor(name)
        return _Tensor(self.writer.node("Transpose", [rows], f"{rows}/nchw", perm=[0, 3, 1, 2]), NHWC)

    def _padded(self, tensor: _Tensor) -> _Tensor:
        """The tensor with its padding written as a node."""
        if tensor.pads == _NO_PADS:
            return tensor
        top, left, bottom, right = tensor.pads
        pads = self.writer.weight(f"{tensor.name}/pads", np.array([0, 0, top, left, 0, 0, bottom, right]))
        value = self.writer.weight(f"{tensor.name}/pad_value", np.float32(tensor.pad_value))
        name = self.writer.node("Pad", [tensor.name, pads, value], f"{tensor.name}/padded")
        return replace(tensor, name=name, pads=_NO_PADS)

    def _sliding(self, node: TfjsNode, pad_value: float) -> tuple[_Tensor, dict[str, Any]]:
        """The input of a convolution or pooling, and its attributes."""
        tensor, padding = self._map(node.inputs[0]), node.text("padding")
        strides = node.height_and_width("strides")
        attributes: dict[str, Any] = {"strides": strides, "dilations": node.height_and_width("dilations")}
        if padding == "VALID" and tensor.pads != _NO_PADS and tensor.pad_value == pad_value:
            attributes["pads"] = list(tensor.pads)
        elif padding in ("VALID", "SAME"):
            tensor = self._padded(tensor)
            attributes["auto_pad"] = {"VALID": "VALID", "SAME": "SAME_UPPER"}[padding]
        else:
            raise BundleError(f"node {node.name}: expected SAME or VALID padding, got {padding}")
        return replace(tensor, stride=tensor.stride * strides[0]), attributes

    def _convolution(self, node: TfjsNode) -> _Tensor:
        tensor, attributes = self._sliding(node, 0.0)
        kernel = self._constant(node.inputs[1])
        groups = 1
        if "Depthwise" in node.op:  # (h, w, channels, multiplier): one group per channel
            groups = kernel.shape[2]
            kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
        weights = [self.writer.weight(node.inputs[1], kernel.transpose(3, 2, 0, 1))]
        fused = node.texts("fused_ops")
        if fused and fused[0] == "BiasAdd":
            weights.append(self.writer.weight(node.inputs[2], self._constant(node.inputs[2])))
        name, activations = self._name(node), [one for one in fused if one != "BiasAdd"]
        self.writer.node(
            "Conv",
            [tensor.name, *weights],
            f"{name}/convolution" if activations else name,
            group=groups,
            kernel_shape=list(kernel.shape[:2]),
            **attributes,
        )
        if activations:
            self._activate(activations[0], f"{name}/convolution", name)
        return replace(tensor, name=name, pads=_NO_PADS)

    def _activate(self, activation: str, value: str, name: str) -> None:
        if activation == "Relu6":
            self.writer.relu6(value, name)
        elif activation == "Relu":
            self.writer.node("Relu", [value], name)
        else:
            raise BundleError(f"node {name}: expected the activation Relu or Relu6, got {activation}")

    def _max_pool(self, node: TfjsNode) -> _Tensor:
        tensor, attributes = self._sliding(node, -np.inf)
        attributes["kernel_shape"] = node.height_and_width("ksize")
        name = self.writer.node("MaxPool", [tensor.name], self._name(node), **attributes)
        return replace(tensor, name=name, pads=_NO_PADS)

    def _pad(self, node: TfjsNode) -> _Tensor:
        value = float(self._constant(node.inputs[2])) if len(node.inputs) > 2 else 0.0
        amounts, tensor = self._constant(node.inputs[1]), self._padded(self._emit(node.inputs[0]))
        if not tensor.order:
            raise BundleError(f"node {node.name}: expected a padding of feature maps")
        by_axis = np.empty_like(amounts)
        by_axis[list(tensor.order)] = amounts
        if not by_axis[:2].any():
            return replace(tensor, pads=tuple(by_axis[2:].T.ravel().tolist()), pad_value=value)
        inputs = [tensor.name, self._ints(node, by_axis.T.ravel(), "pads")]
        return replace(tensor, name=self.writer.node("Pad", inputs, self._name(node)))

    def _resize(self, node: TfjsNode) -> _Tensor:
        tensor = self._padded(self._map(node.inputs[0]))
        factor = float(self._constant(node.inputs[1])[0]) * tensor.stride / self._size_px
        scales = self.writer.weight(f"scale_{factor:g}", np.array([1, 1, factor, factor], np.float32))
        corners = "align_corners" if node.flag("align_corners") else "asymmetric"
        name = self.writer.node(
            "Resize",
            [tensor.name, "", scales],
            self._name(node),
            mode="linear",
            coordinate_transformation_mode="half_pixel" if node.flag("half_pixel_centers") else corners,
        )
        return replace(tensor, name=name, stride=tensor.stride / factor)

    def _transpose(self, node: TfjsNode) -> _Tensor:
        axes, tensor = self._constant(node.inputs[1]).tolist(), self._emit(node.inputs[0])
        if tensor.order:
            return replace(tensor, order=tuple(tensor.order[axis] for axis in axes))
        return _Tensor(self.writer.node("Transpose", [tensor.name], self._name(node), perm=axes))

    def _same_axes(self, names: Sequence[str]) -> tuple[list[str], _Tensor]:
        """The ONNX names of inputs, and one of them for the axes, which all have."""
        variable = [name for name in names if name.partition(":")[0] not in self._weights]
        tensors = {name: self._padded(self._emit(name)) for name in variable}
        model = next(iter(tensors.values()))
        if any(tensor.order != model.order for tensor in tensors.values()):
            tensors = {name: _Tensor(self.tensor(name)) for name in variable}
            model = next(iter(tensors.values()))
        found = [tensors[n].name if n in tensors else self._broadcast(n, model.order) for n in names]
        return found, model

    def _broadcast(self, name: str, order: tuple[int, ...]) -> str:
        """A constant that is combined with a tensor of these axes."""
        values = self._weights[name]
        if values.ndim and order:
            axes = np.argsort(order)
            values = values.reshape((1,) * (len(order) - values.ndim) + values.shape).transpose(axes)
        return self.writer.weight(name, values)

    def _elementwise(self, node: TfjsNode) -> _Tensor:
        names, model = self._same_axes(node.inputs)
        op, attributes = _ELEMENTWISE[node.op]
        known = {name: node.number(name) for name in attributes}
        return replace(model, name=self.writer.node(op, names, self._name(node), **known))

    def _relu6(self, node: TfjsNode) -> _Tensor:
        tensor = self._padded(self._emit(node.inputs[0]))
        return replace(tensor, name=self.writer.relu6(tensor.name, self._name(node)))

    def _cast(self, node: TfjsNode) -> _Tensor:
        tensor = self._padded(self._emit(node.inputs[0]))
        to = _ONNX_TYPES[node.kind("DstT")]
        return replace(tensor, name=self.writer.node("Cast", [tensor.name], self._name(node), to=to))

    def _batch_norm(self, node: TfjsNode) -> _Tensor:
        tensor = self._padded(self._map(node.inputs[0]))
        statistics = [self.writer.weight(name, self._constant(name)) for name in node.inputs[1:]]
        epsilon = node.number("epsilon")
        inputs = [tensor.name, *statistics]
        name = self.writer.node("BatchNormalization", inputs, self._name(node), epsilon=epsilon)
        return replace(tensor, name=name)

    def _mean(self, node: TfjsNode) -> _Tensor:
        tensor, axes = self._padded(self._map(node.inputs[0])), self._constant(node.inputs[1]).tolist()
        if sorted(axes) != [1, 2] or not node.flag("keep_dims"):
            raise BundleError(f"node {node.name}: expected a mean of each feature map, got one over {axes}")
        return replace(tensor, name=self.writer.node("GlobalAveragePool", [tensor.name], self._name(node)))

    def _concat(self, node: TfjsNode) -> _Tensor:
        names, model = self._same_axes(node.inputs[:-1])
        axis = int(self._constant(node.inputs[-1]))
        axis = model.order[axis] if model.order else axis
        return replace(model, name=self.writer.node("Concat", names, self._name(node), axis=axis))

    def _split(self, node: TfjsNode) -> tuple[_Tensor, ...]:
        tensor, axis = self._padded(self._emit(node.inputs[0])), int(self._constant(node.inputs[2]))
        sizes = self._ints(node, self._constant(node.inputs[1]), "sizes")
        name = self._name(node)
        outputs = [f"{name}/{i}" for i in range(len(self._constant(node.inputs[1])))]
        axis = tensor.order[axis] if tensor.order else axis
        self.writer.node("Split", [tensor.name, sizes], *outputs, axis=axis)
        return tuple(replace(tensor, name=output) for output in outputs)

    def _reshape(self, node: TfjsNode) -> _Tensor:
        shape = self._ints(node, self._constant(node.inputs[1]), "shape")
        return self._rows("Reshape", node, shape)

    def _expand_dims(self, node: TfjsNode) -> _Tensor:
        return self._rows("Unsqueeze", node, self._ints(node, [int(self._constant(node.inputs[1]))], "axes"))

    def _strided_slice(self, node: TfjsNode) -> _Tensor:
        start, end, step = (self._constant(name).copy() for name in node.inputs[1:])
        if any(node.number(f"{name}_mask") for name in ("shrink_axis", "new_axis", "ellipsis")):
            raise BundleError(f"node {node.name}: expected a slice that keeps the axes")
        for axis in range(len(start)):
            start[axis] = 0 if int(node.number("begin_mask")) >> axis & 1 else start[axis]
            end[axis] = 2**31 - 1 if int(node.number("end_mask")) >> axis & 1 else end[axis]
        limits = {"starts": start, "ends": end, "axes": np.arange(len(start)), "steps": step}
        return self._rows("Slice", node, *(self._ints(node, v, name) for name, v in limits.items()))

    def _gather(self, node: TfjsNode) -> _Tensor:
        axis = int(self._constant(node.inputs[2]))
        return self._rows("Gather", node, self.tensor(node.inputs[1]), axis=axis)

    def _rows(self, op: str, node: TfjsNode, *inputs: str, **attributes: Any) -> _Tensor:
        """An operation that needs the axes of TensorFlow."""
        names = [self.tensor(node.inputs[0]), *inputs]
        return _Tensor(self.writer.node(op, names, self._name(node), **attributes))

    def _top_k(self, node: TfjsNode) -> tuple[_Tensor, ...]:
        name = self._name(node)
        inputs = [self.tensor(node.inputs[0]), self._ints(node, [int(self._constant(node.inputs[1]))], "k")]
        self.writer.node("TopK", inputs, f"{name}/values", f"{name}/indices")
        indices = self.writer.node("Cast", [f"{name}/indices"], f"{name}/int32", to=6)
        return _Tensor(f"{name}/values"), _Tensor(indices)

    def _identity(self, node: TfjsNode) -> _Tensor:
        return self._emit(node.inputs[0])


_ELEMENTWISE: dict[str, tuple[str, tuple[str, ...]]] = {
    "BiasAdd": ("Add", ()),
    "Add": ("Add", ()),
    "AddV2": ("Add", ()),
    "AddN": ("Sum", ()),
    "Sub": ("Sub", ()),
    "Mul": ("Mul", ()),
    "Equal": ("Equal", ()),
    "FloorDiv": ("Div", ()),  # Of integers that are not negative.
    "FloorMod": ("Mod", ()),
    "Relu": ("Relu", ()),
    "LeakyRelu": ("LeakyRelu", ("alpha",)),
    "Sigmoid": ("Sigmoid", ()),
}
_WRITE: dict[str, Callable[[TfjsConverter, TfjsNode], _Tensor | tuple[_Tensor, ...]]] = {
    **dict.fromkeys(_ELEMENTWISE, TfjsConverter._elementwise),
    "Conv2D": TfjsConverter._convolution,
    "_FusedConv2D": TfjsConverter._convolution,
    "DepthwiseConv2dNative": TfjsConverter._convolution,
    "FusedDepthwiseConv2dNative": TfjsConverter._convolution,
    "FusedBatchNorm": TfjsConverter._batch_norm,
    "MaxPool": TfjsConverter._max_pool,
    "Mean": TfjsConverter._mean,
    "Pad": TfjsConverter._pad,
    "PadV2": TfjsConverter._pad,
    "ResizeBilinear": TfjsConverter._resize,
    "Transpose": TfjsConverter._transpose,
    "Relu6": TfjsConverter._relu6,
    "Cast": TfjsConverter._cast,
    "ConcatV2": TfjsConverter._concat,
    "SplitV": TfjsConverter._split,
    "Reshape": TfjsConverter._reshape,
    "ExpandDims": TfjsConverter._expand_dims,
    "StridedSlice": TfjsConverter._strided_slice,
    "GatherV2": TfjsConverter._gather,
    "TopKV2": TfjsConverter._top_k,
    "Identity": TfjsConverter._identity,
}
