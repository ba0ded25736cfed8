"""GPTQ: int8 weights that minimise the error on the calibration images, instead of rounding to nearest.

If the rounding errors of a kernel add up on the layer's inputs, as in a depthwise convolution with one large
weight among nine, rounding to nearest costs more accuracy than all activations together. So the weights are
rounded one after another, and the remaining ones compensate the error as far as the layer's inputs allow; the
bias absorbs the mean of the residual. The solution is closed-form in the second moments of the inputs:
nothing is trained.

Sources: Frantar and Alistarh, "Optimal Brain Compression" (2022); Frantar et al., "GPTQ" (2023), with its
order and blocks; Nagel et al., "Data-Free Quantization" (2019), 4.2, bias correction.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from edge_vision.offline.onnx_writer import import_onnx
from edge_vision.offline.progress import Count, no_count
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization.input_moments import InputMoments
from edge_vision.optimize.quantization.layer_inputs import LayerWeights, layer_weights

_DAMPING = 0.1
"""Share of the mean variance. GPTQ uses 0.01; these moments are of few images and generalise less."""
_BLOCK = 128


@dataclass(frozen=True, slots=True, eq=False)
class RoundedWeights:
    """weights: int8, in the layout of the graph. bias_shift (outputs,): to be added to the bias."""

    weights: np.ndarray
    bias_shift: np.ndarray


def round_weights(
    model: Any,
    quantized: Any,
    moments: Mapping[str, InputMoments],
    largest: int,
    show: Count = no_count,
) -> dict[str, RoundedWeights]:
    """Layer name -> rounded weights, for the layers with moments that are quantized in `quantized`.

    quantized: made from `model`, for its scales. largest: magnitude of a weight. show: receives the number
    of layers that are done.
    """
    found, layers = {}, layer_weights(model)
    for number, (name, layer) in enumerate(layers.items(), 1):
        tensors = _quantized_tensors(quantized, name)
        if tensors is not None and name in moments:
            found[name] = _round_layer(layer, tensors.scales, moments[name], largest)
        show(number, len(layers))
    return found


def _round_layer(
    layer: LayerWeights, scales: np.ndarray, moments: InputMoments, largest: int
) -> RoundedWeights:
    groups, k = moments.quantized_mean.shape
    rows = layer.rows.reshape(groups, -1, k).astype(np.float64)
    steps = np.broadcast_to(scales.astype(np.float64), layer.rows.shape[:1]).reshape(groups, -1, 1)
    second = moments.second
    if second.size and layer.has_bias:  # The bias absorbs the error of the mean.
        second = second - moments.quantized_mean[:, :, None] * moments.quantized_mean[:, None, :]
    ints = rounded(rows / steps, second, largest) if second.size else _nearest(rows / steps, largest)
    fp32_output = (rows * moments.fp32_mean[:, None]).sum(2)
    quantized_output = (ints * steps * moments.quantized_mean[:, None]).sum(2)
    shift = (fp32_output - quantized_output).reshape(-1) if layer.has_bias else np.zeros(len(layer.rows))
    weights = layer.shaped(ints.reshape(layer.rows.shape)).astype(np.int8)
    return RoundedWeights(weights, shift.astype(np.float32))


def _nearest(rows: np.ndarray, largest: int) -> np.ndarray:
    return np.clip(np.rint(rows), -largest, largest)


def rounded(rows: np.ndarray, second: np.ndarray, largest: int) -> np.ndarray:
    """Integers within +-largest for (g, outputs, k) weights in units of a step, by GPTQ.

    second: (g, k, k) second moments of the inputs.
    """
    groups, _, k = rows.shape
    power = np.maximum(np.einsum("gii->gi", second), 0.0)
    # The absolute terms are for constant inputs, whose variance is rounding noise of either sign.
    damping = _DAMPING * power.mean(1) + 1e-5 * np.abs(second).max((1, 2)) + 1e-9
    order = np.argsort(-power, axis=1)
    sorted_by_power = np.arange(groups)[:, None, None], order[:, :, None], order[:, None, :]
    upper = _inverse_factor(second[sorted_by_power], damping)
    left = np.take_along_axis(rows, order[:, None, :], axis=2)
    ints = np.empty_like(left)
    for start in range(0, k, _BLOCK):
        end = min(k, start + _BLOCK)
        errors = np.empty_like(left[:, :, start:end])
        for i in range(start, end):
            ints[:, :, i] = _nearest(left[:, :, i], largest)
            error = (left[:, :, i] - ints[:, :, i]) / upper[:, i, i, None]
            left[:, :, i:end] -= error[:, :, None] * upper[:, None, i, i:end]
            errors[:, :, i - start] = error
        left[:, :, end:] -= np.matmul(errors, upper[:, start:end, end:])
    back = np.argsort(order, axis=1)
    return np.take_along_axis(ints, back[:, None, :], axis=2)


def _inverse_factor(second: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """(g, k, k) upper Cholesky factors of the inverses. The damping rises tenfold as often as required:
    moments summed in fp32 may have eigenvalues below zero. Raises OptimizeError."""
    for _ in range(6):
        inverse = np.linalg.inv(second + damping[:, None, None] * np.eye(second.shape[-1]))
        try:
            return np.linalg.cholesky((inverse + inverse.transpose(0, 2, 1)) / 2.0).transpose(0, 2, 1)
        except np.linalg.LinAlgError:
            damping = 10 * damping
    raise OptimizeError("expected finite inputs of each layer on the calibration images, got others")


def apply_rounding(quantized: Any, rounding: Mapping[str, RoundedWeights]) -> None:
    """Write rounded weights into a quantized model, for the layers that are quantized in it."""
    numpy_helper = import_onnx().numpy_helper
    for name, rounded_weights in rounding.items():
        tensors = _quantized_tensors(quantized, name)
        if tensors is None:
            continue
        weights = numpy_helper.from_array(rounded_weights.weights, tensors.weight.name)
        tensors.weight.CopyFrom(weights)
        if tensors.bias is not None:
            bias = _shifted(
                numpy_helper.to_array(tensors.bias), tensors.bias_scale, rounded_weights.bias_shift
            )
            tensors.bias.CopyFrom(numpy_helper.from_array(bias, tensors.bias.name))


def _shifted(bias: np.ndarray, scale: np.ndarray | None, shift: np.ndarray) -> np.ndarray:
    """The bias with the shift added, in its own type. scale: None if the bias is in fp32."""
    if scale is None:
        return np.asarray(bias + shift, bias.dtype)
    limits = np.iinfo(np.int32)
    shifted = np.rint(bias + shift.astype(np.float64) / scale)
    return np.clip(shifted, limits.min, limits.max).astype(bias.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class _QuantizedTensors:
    """The tensors of a layer in a quantized model. bias_scale: None if the bias is in fp32."""

    weight: Any
    scales: np.ndarray
    bias: Any
    bias_scale: np.ndarray | None


def _quantized_tensors(quantized: Any, name: str) -> _QuantizedTensors | None:
    """None if the layer is in fp32, or its weights are not int8 constants."""
    to_array = import_onnx().numpy_helper.to_array
    node = next((node for node in quantized.graph.node if node.name == name), None)
    if node is None:
        return None
    constants = {tensor.name: tensor for tensor in quantized.graph.initializer}
    readers = {one.output[0]: one for one in quantized.graph.node if one.op_type == "DequantizeLinear"}
    reader = readers.get(node.input[1])
    if reader is None or reader.input[0] not in constants:
        return None
    weight = constants[reader.input[0]]
    if to_array(weight).dtype != np.int8:
        return None
    scales = to_array(constants[reader.input[1]])
    if len(node.input) < 3:
        return _QuantizedTensors(weight, scales, None, None)
    if node.input[2] in constants:
        return _QuantizedTensors(weight, scales, constants[node.input[2]], None)
    bias, bias_scale = (constants[name] for name in readers[node.input[2]].input[:2])
    return _QuantizedTensors(weight, scales, bias, to_array(bias_scale))


def write_rounding(rounding: Mapping[str, RoundedWeights], file: Path) -> None:
    """Store rounded weights for the next graph of this size."""
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays = dict(_arrays(rounding))
    unfinished = file.with_suffix(".unfinished")
    with unfinished.open("wb") as opened:
        np.savez(opened, **arrays)  # type: ignore[arg-type]
    os.replace(unfinished, file)


def _arrays(rounding: Mapping[str, RoundedWeights]) -> Iterator[tuple[str, np.ndarray]]:
    yield "names", np.array(list(rounding), str)
    for number, layer in enumerate(rounding.values()):
        yield f"{number}.weights", layer.weights
        yield f"{number}.bias_shift", layer.bias_shift


def read_rounding(file: Path) -> dict[str, RoundedWeights] | None:
    """Rounded weights that `write_rounding` stored; None if there are none, or damaged ones."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            names = [str(name) for name in arrays["names"]]
            return {
                name: RoundedWeights(arrays[f"{i}.weights"], arrays[f"{i}.bias_shift"])
                for i, name in enumerate(names)
            }
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, BadZipFile, zlib.error):
        return None
