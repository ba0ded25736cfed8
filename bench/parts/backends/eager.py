"""PyTorch, operation by operation: what the runtimes are compared with. No dependency of the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parts.backends.networks import NETWORKS
from torch import Tensor, nn
from torch.nn import functional

from edge_vision.backends.base import BackendActual, Session, TensorSpec


class EagerSession(Session):
    """A network of NETWORKS, or an ONNX graph node by node, as a session: the same heads can read it."""

    def __init__(self, model: str | Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._module: Any
        if isinstance(model, Path):
            self._module = OnnxModule(model).eval()
            self.inputs, self.outputs = self._module.inputs, self._module.outputs
        else:
            network = NETWORKS[model]
            self._module = _AsTuple(network.make()).eval()
            self.inputs = (TensorSpec("images", (1, 3, network.size_px, network.size_px), "float32"),)
            self.outputs = (TensorSpec("out", (None, None), "float32"),)
        self.actual = BackendActual("pytorch", torch.__version__, "cpu", "eager", "fp32", threads)

    def run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As in the contract; each call returns new arrays."""
        with torch.inference_mode():
            values = self._module(*(torch.from_numpy(tensors[spec.name]) for spec in self.inputs))
        return {spec.name: value.numpy() for spec, value in zip(self.outputs, values, strict=True)}


class _AsTuple(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        out = self.module(images)
        return out if isinstance(out, tuple) else (out,)


class OnnxModule(nn.Module):
    """Runs an ONNX graph's nodes with torch's functions, as a hand-written forward would."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnx

        graph = onnx.load(str(path)).graph
        self._weights = {
            one.name: torch.from_numpy(onnx.numpy_helper.to_array(one).copy()) for one in graph.initializer
        }
        self._nodes = [
            (
                node.op_type,
                list(node.input),
                node.output[0],
                {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute},
            )
            for node in graph.node
        ]
        self.inputs, self.outputs = _specs(graph.input), _specs(graph.output)

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        values = dict(self._weights)
        values.update({spec.name: image for spec, image in zip(self.inputs, images, strict=True)})
        for op, inputs, output, attributes in self._nodes:
            values[output] = _OPS[op]([values[name] for name in inputs], attributes)
        return tuple(values[spec.name] for spec in self.outputs)


def _specs(values: Any) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(one.name, tuple(d.dim_value for d in one.type.tensor_type.shape.dim), "float32")
        for one in values
    )


def _conv(values: list[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    image, kernel = values[:2]
    strides = list(attributes.get("strides", [1, 1]))
    if attributes.get("auto_pad") == b"SAME_UPPER":
        pads = [
            _same(size, k, s) for size, k, s in zip(image.shape[2:], kernel.shape[2:], strides, strict=True)
        ]
        if pads[0][0] == pads[0][1] == pads[1][0] == pads[1][1]:
            padding = pads[0][0]
        else:
            image, padding = functional.pad(image, (*pads[1], *pads[0])), 0
        return functional.conv2d(image, kernel, *values[2:], strides, padding, 1, attributes.get("group", 1))
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    if (top, left) == (bottom, right):
        return functional.conv2d(
            image, kernel, *values[2:], strides, (top, left), 1, attributes.get("group", 1)
        )
    image = functional.pad(image, (left, right, top, bottom))
    return functional.conv2d(image, kernel, *values[2:], strides, 0, 1, attributes.get("group", 1))


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _batch_norm(values: list[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    image, scale, bias, mean, variance = values
    return functional.batch_norm(image, mean, variance, scale, bias, eps=attributes.get("epsilon", 1e-5))


def _gemm(values: list[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    assert attributes.get("transB") == 1
    return functional.linear(*values)


_OPS: dict[str, Callable[[list[Tensor], Mapping[str, Any]], Tensor]] = {
    "Conv": lambda v, a: _conv([v[0], v[1], v[2] if len(v) > 2 else None], a),  # type: ignore[list-item]
    "Add": lambda v, a: v[0] + v[1],
    "Mul": lambda v, a: v[0] * v[1],
    "Sum": lambda v, a: sum(v[1:], v[0]),
    "Clip": lambda v, a: torch.clamp(v[0], v[1], v[2]),
    "BatchNormalization": _batch_norm,
    "Transpose": lambda v, a: v[0].permute(*a["perm"]),
    "Reshape": lambda v, a: v[0].reshape(*v[1].tolist()),
    "Concat": lambda v, a: torch.cat(v, a["axis"]),
    "GlobalAveragePool": lambda v, a: v[0].mean((2, 3), keepdim=True),
    "Flatten": lambda v, a: v[0].flatten(a.get("axis", 1)),
    "Gemm": _gemm,
}
