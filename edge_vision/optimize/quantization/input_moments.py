"""Moments of the inputs of each layer, over calibration images: what GPTQ rounds weights by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_vision.offline.progress import Count, no_count
from edge_vision.optimize.quantization.graph_edit import with_outputs
from edge_vision.optimize.quantization.graph_session import session
from edge_vision.optimize.quantization.layer_inputs import layer_weights, sampled_inputs

SAMPLES = 4096
"""Number of input vectors of each layer, over all images."""
MAX_INPUTS = 2560
"""Layers with more inputs for each output round to nearest: their moments would need too much memory."""

Ranges = Mapping[str, tuple[float, float]]


@dataclass(slots=True, eq=False)
class InputMoments:
    """Moments of a layer's g groups of k inputs.

    second (g, k, k): second moments of the quantized inputs, empty for k above MAX_INPUTS. quantized_mean,
    fp32_mean (g, k).
    """

    second: np.ndarray
    quantized_mean: np.ndarray
    fp32_mean: np.ndarray
    count: int = 0


def input_moments(
    model: Any, tensors: Sequence[np.ndarray], ranges: Ranges, show: Count = no_count
) -> dict[str, InputMoments]:
    """Layer name -> moments of its inputs, over the input tensors of a folded model. show: receives the
    number of tensors that are done."""
    layers = layer_weights(model)
    graph_inputs = {value.name for value in model.graph.input}
    names = sorted({layer.input for layer in layers.values()} - graph_inputs)
    running = session(with_outputs(model, names))
    found: dict[str, InputMoments] = {}
    rng = np.random.default_rng(0)
    for number, tensor in enumerate(tensors, 1):
        values = dict.fromkeys(graph_inputs, tensor)
        if names:  # An empty list requests all outputs.
            values.update(zip(names, running.run(names, {model.graph.input[0].name: tensor}), strict=True))
        for name, layer in layers.items():
            fp32 = sampled_inputs(values[layer.input], layer, rng, -(-SAMPLES // len(tensors)))
            quantized = quantized_u8(fp32, ranges[layer.input]) if layer.input in ranges else fp32
            found[name] = _added(found.get(name), quantized, fp32)
        show(number, len(tensors))
    for one in found.values():
        one.second /= one.count
        one.quantized_mean /= one.count
        one.fp32_mean /= one.count
    return found


def quantized_u8(values: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """The values after quantization to u8 with this range and dequantization."""
    low, high = min(0.0, bounds[0]), max(0.0, bounds[1])
    step = (high - low) / 255.0
    if step == 0.0:
        return values
    zero = round(-low / step)
    return np.asarray((np.clip(np.rint(values / step) + zero, 0, 255) - zero) * step, np.float32)


def _added(sums: InputMoments | None, quantized: np.ndarray, fp32: np.ndarray) -> InputMoments:
    """The sums with these samples, (g, samples, k), added."""
    groups, count, k = quantized.shape
    if sums is None:
        side = k if k <= MAX_INPUTS else 0
        sums = InputMoments(np.zeros((groups, side, side)), np.zeros((groups, k)), np.zeros((groups, k)))
    if sums.second.size:
        sums.second += np.matmul(quantized.transpose(0, 2, 1), quantized)
    sums.quantized_mean += quantized.sum(1, dtype=np.float64)
    sums.fp32_mean += fp32.sum(1, dtype=np.float64)
    sums.count += count
    return sums
