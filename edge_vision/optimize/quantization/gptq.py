"""Weights of int8 that fit the calibration pictures, instead of each one rounded to its nearest.

Where a kernel's rounding errors add up on what the layer sees, as in a depthwise convolution of whose nine
weights one is large, rounding to nearest costs more than all activations together. So each weight is rounded
in turn, and those not rounded yet take over its error as far as the layer's inputs allow; what is left as a
mean goes into the bias. In closed form, from the inputs' second moments: nothing is trained.

Sources: Frantar and Alistarh, "Optimal Brain Compression" (2022); Frantar et al., "GPTQ" (2023), whose order
and blocks these are; Nagel et al., "Data-Free Quantization" (2019), 4.2, bias correction.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.bundles.onnx_writer import import_onnx
from edge_vision.optimize.quantization.graph_session import session
from edge_vision.optimize.quantization.layer_inputs import Weights, inputs_of, weights_of

SAMPLES = 4096
"""Of each layer's inputs, over all pictures."""
WIDEST = 2560
"""Inputs of one output above which the moments are not worth their memory: these layers round to nearest."""
_DAMPING = 0.1
"""Of the mean variance. GPTQ takes 0.01; these moments are of few pictures, and others differ."""
_BLOCK = 128

Ranges = Mapping[str, tuple[float, float]]


@dataclass(slots=True, eq=False)
class Moments:
    """Of a layer's g groups of k inputs. second (g, k, k): of the inputs as int8 gives them, empty where too
    wide; given, wanted (g, k): their mean so, and in fp32."""

    second: np.ndarray
    given: np.ndarray
    wanted: np.ndarray
    count: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """ints: the weights, int8, shaped as in the graph. shift (outputs,): to be added to the bias."""

    ints: np.ndarray
    shift: np.ndarray


def moments(model: Any, tensors: Sequence[np.ndarray], ranges: Ranges) -> dict[str, Moments]:
    """Of each layer of a folded model whose weights can be fitted, by its name, over input tensors."""
    layers = weights_of(model)
    shown = copy.deepcopy(model)
    own = {value.name for value in model.graph.input}
    names = sorted({layer.input for layer in layers.values()} - own)
    known = {value.name for value in model.graph.output}
    helper = import_onnx().helper
    shown.graph.output.extend(helper.make_empty_tensor_value_info(n) for n in names if n not in known)
    running = session(shown)
    found: dict[str, Moments] = {}
    rng = np.random.default_rng(0)
    for tensor in tensors:
        values = dict.fromkeys(own, tensor)
        if names:  # Asked for none, it gives all.
            values.update(zip(names, running.run(names, {model.graph.input[0].name: tensor}), strict=True))
        for name, layer in layers.items():
            wanted = inputs_of(values[layer.input], layer, rng, -(-SAMPLES // len(tensors)))
            given = as_int8(wanted, ranges[layer.input]) if layer.input in ranges else wanted
            found[name] = _added(found.get(name), given, wanted)
    for one in found.values():
        one.second, one.given, one.wanted = (v / one.count for v in (one.second, one.given, one.wanted))
    return found


def as_int8(values: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """What u8 with this range makes of values."""
    low, high = min(0.0, bounds[0]), max(0.0, bounds[1])
    step = (high - low) / 255.0
    if step == 0.0:
        return values
    zero = round(-low / step)
    return np.asarray((np.clip(np.rint(values / step) + zero, 0, 255) - zero) * step, np.float32)


def _added(before: Moments | None, given: np.ndarray, wanted: np.ndarray) -> Moments:
    """given, wanted: (g, samples, k)."""
    groups, count, k = given.shape
    if before is None:
        side = k if k <= WIDEST else 0
        before = Moments(np.zeros((groups, side, side)), np.zeros((groups, k)), np.zeros((groups, k)))
    if before.second.size:
        before.second += np.matmul(given.transpose(0, 2, 1), given)
    before.given += given.sum(1, dtype=np.float64)
    before.wanted += wanted.sum(1, dtype=np.float64)
    before.count += count
    return before


def fits(model: Any, made: Any, known: Mapping[str, Moments], largest: int) -> dict[str, Fit]:
    """For each layer that is quantized in `made`, which was made of `model`. largest: integer of a weight."""
    found = {}
    for name, layer in weights_of(model).items():
        place = _quantizer(made, name)
        if place is not None and name in known:
            found[name] = _fit(layer, place.scales, known[name], largest)
    return found


def _fit(layer: Weights, scales: np.ndarray, known: Moments, largest: int) -> Fit:
    groups, k = known.given.shape
    rows = layer.rows.reshape(groups, -1, k).astype(np.float64)
    steps = np.broadcast_to(scales.astype(np.float64), layer.rows.shape[:1]).reshape(groups, -1, 1)
    second = known.second
    if second.size and layer.has_bias:  # What the mean does is the bias's to take.
        second = second - known.given[:, :, None] * known.given[:, None, :]
    ints = rounded(rows / steps, second, largest) if second.size else _nearest(rows / steps, largest)
    wanted, given = ((w * m[:, None]).sum(2) for w, m in ((rows, known.wanted), (ints * steps, known.given)))
    shift = (wanted - given).reshape(-1) if layer.has_bias else np.zeros(len(layer.rows))
    return Fit(layer.shaped(ints.reshape(layer.rows.shape)).astype(np.int8), shift.astype(np.float32))


def _nearest(rows: np.ndarray, largest: int) -> np.ndarray:
    return np.clip(np.rint(rows), -largest, largest)


def rounded(rows: np.ndarray, second: np.ndarray, largest: int) -> np.ndarray:
    """Integers within +-largest for (g, outputs, k) weights in steps, with the least error found on inputs of
    these (g, k, k) moments."""
    groups, _, k = rows.shape
    power = np.maximum(np.einsum("gii->gi", second), 0.0)
    # The last is for inputs that never change: their variance is rounding noise of either sign.
    damping = _DAMPING * power.mean(1) + 1e-5 * np.abs(second).max((1, 2)) + 1e-9
    order = np.argsort(-power, axis=1)
    taken = np.arange(groups)[:, None, None], order[:, :, None], order[:, None, :]
    inverse = np.linalg.inv((second + damping[:, None, None] * np.eye(k))[taken])
    upper = np.linalg.cholesky((inverse + inverse.transpose(0, 2, 1)) / 2.0).transpose(0, 2, 1)
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


def put(made: Any, found: Mapping[str, Fit]) -> None:
    """Write the fits into a quantized model, for the layers that are quantized in it."""
    numpy_helper = import_onnx().numpy_helper
    for name, fit in found.items():
        place = _quantizer(made, name)
        if place is None:
            continue
        place.weight.CopyFrom(numpy_helper.from_array(fit.ints, place.weight.name))
        if place.bias is not None:
            before = numpy_helper.to_array(place.bias)
            if place.bias_scale is None:
                after = before + fit.shift
            else:
                after = np.rint(before + fit.shift.astype(np.float64) / place.bias_scale)
                after = np.clip(after, np.iinfo(np.int32).min, np.iinfo(np.int32).max)
            place.bias.CopyFrom(numpy_helper.from_array(after.astype(before.dtype), place.bias.name))


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where a layer's numbers are in a quantized model. bias_scale: None where the bias is in fp32."""

    weight: Any
    scales: np.ndarray
    bias: Any
    bias_scale: np.ndarray | None


def _quantizer(made: Any, name: str) -> _Place | None:
    """None where the layer is in fp32, or its weights are no int8 constants."""
    to_array = import_onnx().numpy_helper.to_array
    node = next((node for node in made.graph.node if node.name == name), None)
    if node is None:
        return None
    constants = {tensor.name: tensor for tensor in made.graph.initializer}
    readers = {one.output[0]: one for one in made.graph.node if one.op_type == "DequantizeLinear"}
    reader = readers.get(node.input[1])
    if reader is None or reader.input[0] not in constants:
        return None
    weight = constants[reader.input[0]]
    if to_array(weight).dtype != np.int8:
        return None
    scales = to_array(constants[reader.input[1]])
    if len(node.input) < 3:
        return _Place(weight, scales, None, None)
    if node.input[2] in constants:
        return _Place(weight, scales, constants[node.input[2]], None)
    bias, bias_scale = (constants[name] for name in readers[node.input[2]].input[:2])
    return _Place(weight, scales, bias, to_array(bias_scale))


def write_fits(found: Mapping[str, Fit], file: Path) -> None:
    """Keep them for the next graph of this size."""
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays = dict(_arrays(found))
    unfinished = file.with_suffix(".unfinished")
    with unfinished.open("wb") as opened:
        np.savez(opened, **arrays)  # type: ignore[arg-type]
    os.replace(unfinished, file)


def _arrays(found: Mapping[str, Fit]) -> Iterator[tuple[str, np.ndarray]]:
    yield "names", np.array(list(found), str)
    for number, fit in enumerate(found.values()):
        yield f"{number}.ints", fit.ints
        yield f"{number}.shift", fit.shift


def read_fits(file: Path) -> dict[str, Fit] | None:
    """What `write_fits` wrote; None where it did not."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            names = [str(name) for name in arrays["names"]]
            return {name: Fit(arrays[f"{i}.ints"], arrays[f"{i}.shift"]) for i, name in enumerate(names)}
    except (OSError, ValueError, KeyError):
        return None
