"""The layers of a graph as matrices: rows of weights, and samples of their inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_vision.offline.onnx_writer import import_onnx


@dataclass(frozen=True, slots=True, eq=False)
class LayerWeights:
    """A layer that multiplies constant rows with its input.

    input: name of its input tensor. rows (outputs, k): the outputs of a convolution are ordered by group.
    transposed: the graph stores (k, outputs). shape: in the graph. kernel, strides, dilations, pads (top,
    left, bottom, right): of a convolution, empty for a matrix product. auto_pad: ONNX's attribute.
    """

    input: str
    rows: np.ndarray
    has_bias: bool
    transposed: bool
    shape: tuple[int, ...]
    groups: int = 1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    auto_pad: str = "NOTSET"

    def shaped(self, rows: np.ndarray) -> np.ndarray:
        """(outputs, k) values in the layout of the graph."""
        return np.ascontiguousarray(rows.T if self.transposed else rows).reshape(self.shape)


def layer_weights(model: Any) -> dict[str, LayerWeights]:
    """Node name -> weights, of 2D convolutions and products with a constant matrix that share their weights
    with no other node."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    uses = Counter(name for node in model.graph.node for name in node.input)
    found = {}
    for node in model.graph.node:
        if node.name and len(node.input) > 1 and node.input[1] in constants and uses[node.input[1]] == 1:
            weights = _weights_of(node, constants)
            if weights is not None:
                found[node.name] = weights
    return found


def _weights_of(node: Any, constants: dict[str, Any]) -> LayerWeights | None:
    onnx = import_onnx()
    values = onnx.numpy_helper.to_array(constants[node.input[1]])
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    bias = node.input[2] if len(node.input) > 2 else ""
    has_bias = bias in constants and onnx.numpy_helper.to_array(constants[bias]).ndim == 1
    if node.op_type == "Conv" and values.ndim == 4:
        return LayerWeights(
            node.input[0],
            values.reshape(len(values), -1),
            has_bias,
            False,
            values.shape,
            attributes.get("group", 1),
            values.shape[2:],
            tuple(attributes.get("strides", (1, 1))),
            tuple(attributes.get("dilations", (1, 1))),
            tuple(attributes.get("pads", (0, 0, 0, 0))),
            attributes.get("auto_pad", b"NOTSET").decode(),
        )
    plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get(
        "transA", 0
    )
    if node.op_type in ("Gemm", "MatMul") and values.ndim == 2 and plain:
        transposed = not attributes.get("transB", 0)
        rows = values.T if transposed else values
        return LayerWeights(node.input[0], rows, has_bias, transposed, values.shape)
    return None


def multiplications(model: Any, ops: Collection[str]) -> dict[str, int]:
    """Node name -> number of multiplications for one image, of nodes with these operators; 0 for dynamic
    shapes."""
    inferred = import_onnx().shape_inference.infer_shapes(model).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
    shapes.update({tensor.name: list(tensor.dims) for tensor in inferred.initializer})
    found = {}
    for node in inferred.node:
        if node.op_type in ops and node.name:
            first, second, out = (shapes.get(name, [0]) for name in (*node.input[:2], node.output[0]))
            each = {"Conv": second[1:], "ConvTranspose": second[1:]}.get(node.op_type, first[-1:])
            positions = first if node.op_type == "ConvTranspose" else out
            found[node.name] = int(np.prod(each) * np.prod(positions))
    return found


def sampled_inputs(
    values: np.ndarray, layer: LayerWeights, rng: np.random.Generator, most: int
) -> np.ndarray:
    """(groups, samples, k) float32: at most so many random input vectors of a layer.

    values: its input tensor, (1, c, h, w) or (..., k).
    """
    if not layer.kernel:
        samples = values.reshape(-1, values.shape[-1])
        if len(samples) > most:
            samples = samples[rng.integers(len(samples), size=most)]
        return np.asarray(samples[None], np.float32)
    extent = [(side - 1) * step + 1 for side, step in zip(layer.kernel, layer.dilations, strict=True)]
    top, left, bottom, right = _pads(layer, extent, values.shape[2:])
    padded = np.pad(values[0], ((0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, extent, axis=(1, 2))
    windows = windows[
        :, :: layer.strides[0], :: layer.strides[1], :: layer.dilations[0], :: layer.dilations[1]
    ]
    channels, height, width = windows.shape[:3]
    count = height * width
    positions = rng.integers(count, size=most) if count > most else np.arange(count)
    samples = windows[:, positions // width, positions % width]
    grouped = samples.reshape(layer.groups, channels // layer.groups, len(positions), -1)
    return np.asarray(grouped.transpose(0, 2, 1, 3).reshape(layer.groups, len(positions), -1), np.float32)


def _pads(layer: LayerWeights, extent: Sequence[int], size: Sequence[int]) -> tuple[int, ...]:
    """Top, left, bottom, right. extent: of the dilated kernel, (rows, columns); size: of the input."""
    if layer.auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        return layer.pads
    sides = zip(size, layer.strides, extent, strict=True)
    needed = [max(0, (-(-side // stride) - 1) * stride + width - side) for side, stride, width in sides]
    less, more = [n // 2 for n in needed], [n - n // 2 for n in needed]
    return (*less, *more) if layer.auto_pad == "SAME_UPPER" else (*more, *less)
