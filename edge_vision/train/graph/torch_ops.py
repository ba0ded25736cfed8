"""The operators of ONNX in PyTorch: functions of a node and its input tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A node of a graph. attributes: as Python values, texts as str."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.attributes[key]

    def get(self, key: str, default: Any) -> Any:
        """An attribute, or ONNX's default."""
        return self.attributes.get(key, default)


def _same_pads(node: Node, size: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """Pads of two axes as for F.pad: left, right, top, bottom."""
    strides, dilations = node.get("strides", [1, 1]), node.get("dilations", [1, 1])
    mode, pads = node.get("auto_pad", "NOTSET"), node.get("pads", [0, 0, 0, 0])
    if not mode.startswith("SAME"):
        top, left, bottom, right = (0, 0, 0, 0) if mode == "VALID" else pads
        return [left, right, top, bottom]
    found: list[int] = []
    for side, stride, width, step in zip(size, strides, kernel, dilations, strict=True):
        total = max(0, (-(-side // stride) - 1) * stride + (width - 1) * step + 1 - side)
        less, more = total // 2, total - total // 2
        found = [*((less, more) if mode == "SAME_UPPER" else (more, less)), *found]
    return found


def _padded(x: Tensor, pads: Sequence[int], value: float = 0.0) -> tuple[Tensor, tuple[int, int]]:
    """The tensor, padded if the pads differ per side; and the symmetric pads (rows, columns) left to do."""
    left, right, top, bottom = pads
    if left == right and top == bottom:
        return x, (top, left)
    return F.pad(x, list(pads), value=value), (0, 0)


def _conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if _is_product(node, x, weight):
        return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
    x, pads = _padded(x, _same_pads(node, x.shape[2:], weight.shape[2:]))
    strides, dilations = node.get("strides", [1, 1]), node.get("dilations", [1, 1])
    return F.conv2d(x, weight, bias, strides, pads, dilations, node.get("group", 1))


def _is_product(node: Node, x: Tensor, weight: Tensor) -> bool:
    """Whether a convolution is a product of matrices without a copy: then it trains faster as one."""
    return (
        tuple(weight.shape[2:]) == (1, 1)
        and x.is_contiguous(memory_format=torch.channels_last)
        and node.get("group", 1) == 1
        and set(node.get("strides", [1])) == {1}
        and not any(node.get("pads", []))
    )


def _conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    left, right, top, bottom = _same_pads(node, x.shape[2:], weight.shape[2:])
    rows, columns = node.get("output_padding", [0, 0])
    more = (rows + top - bottom, columns + left - right)
    strides, dilations = node.get("strides", [1, 1]), node.get("dilations", [1, 1])
    return F.conv_transpose2d(x, weight, bias, strides, (top, left), more, node.get("group", 1), dilations)


def _gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a, b = (x.T if node.get(key, 0) else x for x, key in ((a, "transA"), (b, "transB")))
    product = node.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + node.get("beta", 1.0) * c


def _max_pool(node: Node, x: Tensor) -> Tensor:
    kernel = node["kernel_shape"]
    x = F.pad(x, _same_pads(node, x.shape[2:], kernel), value=-math.inf)
    strides, dilations = node.get("strides", [1, 1]), node.get("dilations", [1, 1])
    return F.max_pool2d(x, kernel, strides, 0, dilations, bool(node.get("ceil_mode", 0)))


def _average_pool(node: Node, x: Tensor) -> Tensor:
    kernel, strides = node["kernel_shape"], node.get("strides", [1, 1])
    pads = _same_pads(node, x.shape[2:], kernel)
    sums = F.avg_pool2d(F.pad(x, pads), kernel, strides, 0)
    if node.get("count_include_pad", 0) or not any(pads):
        return sums
    return sums / F.avg_pool2d(F.pad(torch.ones_like(x[:1, :1]), pads), kernel, strides, 0)


def _clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return x if low is None and high is None else torch.clamp(x, low, high)


def _reshape(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    sides = [x.shape[i] if side == 0 else side for i, side in enumerate(shape.tolist())]
    if sides[0] == 1 and -1 not in sides and x.shape[0] > 1 and math.prod(sides) != x.numel():
        sides[0] = x.shape[0]  # A graph for one image, run on a batch.
    elif sides[0] == 1 and -1 in sides and x.shape[0] > 1:
        sides[0] = x.shape[0]
    return x.reshape(sides)


def _split(node: Node, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis, count = node.get("axis", 0), len(node.outputs)
    return torch.split(x, sizes.tolist() if sizes is not None else math.ceil(x.shape[axis] / count), axis)


def _slice(
    node: Node,
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    firsts, lasts = starts.tolist(), ends.tolist()
    along = range(len(firsts)) if axes is None else axes.tolist()
    strides = [1] * len(firsts) if steps is None else steps.tolist()
    for first, last, axis, stride in zip(firsts, lasts, along, strides, strict=True):
        numbers = torch.tensor(range(x.shape[axis])[first:last:stride], dtype=torch.long)
        x = x.index_select(axis, numbers)
    return x


def _squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes.tolist()))


def _unsqueeze(node: Node, x: Tensor, axes: Tensor) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def _gather(node: Node, x: Tensor, index: Tensor) -> Tensor:
    axis = node.get("axis", 0) % x.dim()
    chosen = x.index_select(axis, index.reshape(-1).long() % x.shape[axis])
    return chosen.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _div(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _mod(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


def _top_k(node: Node, x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    values, index = torch.sort(
        x, dim=node.get("axis", -1), descending=bool(node.get("largest", 1)), stable=True
    )
    return values.narrow(node.get("axis", -1), 0, int(k)), index.narrow(node.get("axis", -1), 0, int(k))


def _reduce_mean(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    along = node.get("axes", None) if axes is None else axes.tolist()
    return x.mean(along or list(range(x.dim())), keepdim=bool(node.get("keepdims", 1)))


def _layer_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    shape = x.shape[node.get("axis", -1) % x.dim() :]
    offset = None if bias is None else bias.expand(shape)
    return F.layer_norm(x, shape, scale.expand(shape), offset, node.get("epsilon", 1e-5))


def _batch_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, node.get("epsilon", 1e-5))


def _resize(node: Node, x: Tensor, roi: Any = None, scales: Any = None, sizes: Any = None) -> Tensor:
    if sizes is not None:
        wanted = sizes.tolist()
        factors = [new / old for new, old in zip(wanted, x.shape, strict=True)]
    else:
        factors = scales.tolist()
        wanted = [math.floor(side * factor) for side, factor in zip(x.shape, factors, strict=True)]
    for axis in (axis for axis in range(2, x.dim()) if wanted[axis] != x.shape[axis]):
        x = _resized(node, x, axis, wanted[axis], factors[axis])
    return x


def _resized(node: Node, x: Tensor, axis: int, size: int, factor: float) -> Tensor:
    """One axis resized, by the node's coordinates, linearly or to the nearest."""
    at, last = torch.arange(size, dtype=torch.float64), x.shape[axis] - 1
    mode = node.get("coordinate_transformation_mode", "half_pixel")
    if mode == "asymmetric":
        at = at / factor
    elif mode == "align_corners":
        at = at * (last / max(1, size - 1))
    else:
        at = (at + 0.5) / factor - 0.5
    if node.get("mode", "nearest") == "nearest":
        rounding = node.get("nearest_mode", "round_prefer_floor")
        at = {"floor": torch.floor, "ceil": torch.ceil}.get(rounding, lambda a: torch.ceil(a - 0.5))(at)
        return x.index_select(axis, at.long().clamp(0, last))
    at = at.clamp(0, last)
    low = at.long()
    share = (at - low).to(x.dtype).reshape([-1 if i == axis else 1 for i in range(x.dim())])
    first, second = x.index_select(axis, low), x.index_select(axis, (low + 1).clamp(max=last))
    return torch.lerp(first, second, share)


_TYPES = {1: torch.float32, 2: torch.uint8, 3: torch.int8, 6: torch.int32, 7: torch.int64, 9: torch.bool}


def _cast(node: Node, x: Tensor) -> Tensor:
    # float16 and others keep their type: a trained graph computes in float32.
    return x.to(_TYPES.get(node["to"], torch.float32))


def _along(scale: Tensor, x: Tensor, axis: int) -> Tensor:
    """A scale for each channel, broadcast along its axis."""
    return (
        scale
        if scale.dim() == 0
        else scale.reshape([-1 if i == axis % x.dim() else 1 for i in range(x.dim())])
    )


def _quantize(node: Node, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    limits, axis = torch.iinfo(zero.dtype), node.get("axis", 1)
    values = torch.round(x / _along(scale, x, axis)) + _along(zero, x, axis)
    return values.clamp(limits.min, limits.max).to(zero.dtype)


def _dequantize(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    axis = node.get("axis", 1)
    values = x.to(scale.dtype)
    if zero is not None:
        values = values - _along(zero, x, axis).to(scale.dtype)
    return values * _along(scale, x, axis)


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda node, x: function(x)


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda node, a, b: function(a, b)


OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": _binary(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda node, *xs: torch.cat(xs, node["axis"]),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DequantizeLinear": _dequantize,
    "Div": _div,
    "Equal": _binary(torch.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Expand": lambda node, x, shape: x.expand(torch.broadcast_shapes(x.shape, shape.tolist())),
    "Flatten": lambda node, x: x.reshape(math.prod(x.shape[: node.get("axis", 1)]), -1),
    "Gather": _gather,
    "Gelu": lambda node, x: F.gelu(x, approximate=node.get("approximate", "none")),
    "Gemm": _gemm,
    "GlobalAveragePool": _unary(lambda x: x.mean((2, 3), keepdim=True)),
    "HardSigmoid": lambda node, x: torch.clamp(node.get("alpha", 0.2) * x + node.get("beta", 0.5), 0, 1),
    "HardSwish": _unary(F.hardswish),
    "Identity": _unary(lambda x: x),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda node, x: F.leaky_relu(x, node.get("alpha", 0.01)),
    "MatMul": _binary(torch.matmul),
    "MaxPool": _max_pool,
    "Mod": _mod,
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Pow": _binary(torch.pow),
    "QuantizeLinear": _quantize,
    "ReduceMean": _reduce_mean,
    "Relu": _unary(torch.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _unary(lambda x: torch.tensor(x.shape)),
    "Sigmoid": _unary(torch.sigmoid),
    "Slice": _slice,
    "Softmax": lambda node, x: torch.softmax(x, node.get("axis", -1)),
    "Split": _split,
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(torch.sub),
    "Sum": lambda node, *xs: sum(xs[1:], xs[0]),
    "Tanh": _unary(torch.tanh),
    "TopK": _top_k,
    "Transpose": lambda node, x: x.permute(node.get("perm", list(range(x.dim()))[::-1])),
    "Unsqueeze": _unsqueeze,
}
"""ONNX's operator -> its function. What a batch, a file or a shape of the graph requires is not here."""
