"""Fake quantizers: a QDQ graph with trainable integers, scales and biases.

The quantizers are those of the QDQ graph, so training sees the rounding that the runtimes will do. Integers
start from the fitted ones of GPTQ, not from the nearest ones of the fp32 weights, and move by the gradient of
the straight-through estimator; scales by that of LSQ.

Sources: Esser et al., "Learned Step Size Quantization" (2020); Bengio et al., "Estimating or Propagating
Gradients Through Stochastic Neurons" (2013).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edge_vision.offline.onnx_writer import import_onnx
from edge_vision.optimize.quantization.decoding_tail import LAYER_OPS
from edge_vision.train.graph.torch_graph import TorchGraph
from edge_vision.train.graph.torch_ops import OPERATORS, Node

FREE_LSB = 0.2
"""How far a weight starts from its fitted integer at most. 0.5, the whole interval, loses what GPTQ found."""
_BIAS_STEPS = 256
"""The unit of a bias is its layer's largest bias over this."""


class RoundedActivation(torch.autograd.Function):
    """Quantized and dequantized values, with LSQ's gradients for the values and the scale."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, low: int, high: int) -> torch.Tensor:
        """low, high: of the integers after the zero point was subtracted."""
        rounded = (x / scale).round_().clamp_(low, high).mul_(scale)
        ctx.save_for_backward(x, scale, rounded)
        ctx.limits = low, high
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x, scale, rounded), gradient = ctx.saved_tensors, gradients[0]
        low, high = (limit * float(scale) for limit in ctx.limits)
        # Few passes over the tensors: these are half of the time of a step.
        passed = torch.ops.aten.hardtanh_backward(gradient, x, low, high)
        slope = (rounded * gradient).addcmul_(x, passed, value=-1).sum() / scale
        return passed, slope, None, None


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """The constants of a layer by name. bias: "" if there is none or it is in fp32. axis: of the channels."""

    weight: str
    weight_scale: str
    input_scale: str
    bias: str
    bias_scale: str
    axis: int


class FakeQuantizers(torch.nn.Module):
    """integers: by name, in steps. log_scales: by name of the scale, relative to its first value. biases: by
    name, in their own units, relative to the first value."""

    def __init__(self, quantized: Any, folded: Any) -> None:
        """quantized: the QDQ model of the folded one."""
        super().__init__()
        to_array = import_onnx().numpy_helper.to_array
        self._first = {one.name: to_array(one) for one in quantized.graph.initializer}
        dequantizers = {n.output[0]: n for n in quantized.graph.node if n.op_type == "DequantizeLinear"}
        self._layers = _layers(quantized, dequantizers, self._first)
        self._by_weight = {layer.weight: layer for layer in self._layers.values()}
        self._by_bias = {layer.bias: layer for layer in self._layers.values() if layer.bias}
        fp32 = {one.name: one for one in folded.graph.initializer}
        weights = {n.name: to_array(fp32[n.input[1]]) for n in folded.graph.node if n.name in self._layers}
        self.integers = {
            layer.weight: torch.nn.Parameter(self._start(layer, weights[name]))
            for name, layer in self._layers.items()
        }
        self.biases = {
            name: torch.nn.Parameter(torch.zeros(self._first[name].shape)) for name in self._by_bias
        }
        activations = [n.input[1] for n in quantized.graph.node if n.op_type == "QuantizeLinear"]
        scales = dict.fromkeys([*activations, *(layer.weight_scale for layer in self._layers.values())])
        self.log_scales = {name: torch.nn.Parameter(torch.zeros(self._first[name].shape)) for name in scales}
        self._all = torch.nn.ParameterList(
            [*self.integers.values(), *self.biases.values(), *self.log_scales.values()]
        )

    def _start(self, layer: _Layer, fp32: np.ndarray) -> torch.Tensor:
        fitted = self._first[layer.weight].astype(np.float32)
        exact = fp32 / _along(self._first[layer.weight_scale], fitted.ndim, layer.axis)
        return torch.as_tensor(fitted + np.clip(exact - fitted, -FREE_LSB, FREE_LSB)).float()

    @property
    def operators(self) -> dict[str, Callable[..., torch.Tensor]]:
        """For a TorchGraph of the quantized model."""
        return {"QuantizeLinear": self._quantize, "DequantizeLinear": self._dequantize}

    def _scale(self, name: str) -> torch.Tensor:
        first = torch.as_tensor(np.array(self._first[name]))
        return first * torch.exp(self.log_scales[name]) if name in self.log_scales else first

    def _quantize(self, node: Node, x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
        """The dequantized values: the DequantizeLinear that follows passes them on."""
        limits = torch.iinfo(zero.dtype)
        low, high = limits.min - int(zero), limits.max - int(zero)
        return RoundedActivation.apply(x, self._scale(node.inputs[1]), low, high)

    def _dequantize(
        self, node: Node, x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None = None
    ) -> torch.Tensor:
        name = node.inputs[0]
        if name in self.integers:
            layer, steps = self._by_weight[name], self.integers[name]
            limits = torch.iinfo(x.dtype)
            steps = steps + (torch.round(steps) - steps).detach()
            return steps.clamp(limits.min + 1, limits.max) * self._weight_scale(layer, steps.dim())
        if name in self.biases:
            return torch.as_tensor(self._first_bias(name)) + self.biases[name] * self._bias_unit(name)
        return OPERATORS["DequantizeLinear"](node, x, scale, zero) if name in self._first else x

    def _weight_scale(self, layer: _Layer, rank: int) -> torch.Tensor:
        scale = self._scale(layer.weight_scale)
        return scale.reshape([-1 if i == layer.axis else 1 for i in range(rank)]) if scale.dim() else scale

    def _first_bias(self, name: str) -> np.ndarray:
        return np.asarray(self._first[name] * self._first[self._by_bias[name].bias_scale], np.float32)

    def _bias_unit(self, name: str) -> float:
        return float(np.abs(self._first_bias(name)).max()) / _BIAS_STEPS

    def values(self) -> dict[str, np.ndarray]:
        """The constants of the quantized model as they are now, by name; untrained, the same bytes."""
        with torch.no_grad():
            found = {
                name: np.asarray(self._scale(name).numpy(force=True), np.float32) for name in self.log_scales
            }
            for name, steps in self.integers.items():
                limits = np.iinfo(self._first[name].dtype)
                found[name] = np.clip(np.rint(steps.numpy(force=True)), limits.min + 1, limits.max)
            for name, shift in self.biases.items():
                layer = self._by_bias[name]
                step = np.asarray(found[layer.input_scale] * found[layer.weight_scale], np.float32)
                step = step.reshape(self._first[layer.bias_scale].shape)
                if shift.abs().max() or not np.allclose(step, self._first[layer.bias_scale], 1e-6, 0):
                    bias = self._first_bias(name) + shift.numpy(force=True) * self._bias_unit(name)
                    found[name] = np.clip(np.rint(bias / step.astype(np.float64)), -(2**31) + 1, 2**31 - 1)
                    found[layer.bias_scale] = step
        return {name: np.asarray(value, self._first[name].dtype) for name, value in found.items()}


def trainable(quantized: Any, folded: Any, outputs: list[str]) -> tuple[TorchGraph, FakeQuantizers]:
    """The quantized model with fake quantizers. outputs: tensors to return."""
    quantizers = FakeQuantizers(quantized, folded)
    return TorchGraph(quantized, outputs, quantizers.operators), quantizers


def _along(scale: np.ndarray, rank: int, axis: int) -> np.ndarray:
    return scale.reshape([-1 if i == axis else 1 for i in range(rank)]) if scale.ndim else scale


def _layers(
    quantized: Any, dequantizers: dict[str, Any], constants: dict[str, np.ndarray]
) -> dict[str, _Layer]:
    """Layer name -> its constants, of layers with quantized input and weights."""
    found = {}
    for node in (node for node in quantized.graph.node if node.op_type in LAYER_OPS):
        given, weight, *rest = (dequantizers.get(name) for name in node.input)
        if given is None or weight is None or weight.input[0] not in constants:
            continue
        bias = rest[0] if rest and rest[0] is not None and rest[0].input[0] in constants else None
        axis = next((one.i for one in weight.attribute if one.name == "axis"), 1)
        found[node.name] = _Layer(
            weight.input[0],
            weight.input[1],
            given.input[1],
            bias.input[0] if bias else "",
            bias.input[1] if bias else "",
            axis,
        )
    return found
