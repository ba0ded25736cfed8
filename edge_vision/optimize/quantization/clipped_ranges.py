"""Activation ranges that are narrower than from the minimum to the maximum, where that lessens the error.

A few large values widen the step of all others. The range of least mean squared error weighs both: values
within it have the rounding error of a uniform quantizer, step² / 12, those outside it what is cut off. What
the decoding tail reads keeps its whole range: an object is a rare large value there. So do transformers, in
which few large values carry much: with random weights, a small one lost 2.4 dB by narrower ranges.

Sources: Bondarenko et al., "Understanding and Overcoming the Challenges of Efficient Transformer
Quantization" (2021), on these values; Banner et al., "Post-training 4-bit Quantization of Convolution
Networks for Rapid-Deployment" (2019), 2.1; here with the measured distribution instead of an assumed one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edge_vision.offline.progress import Count, no_count
from edge_vision.optimize.quantization.decoding_tail import tail_inputs, tail_nodes
from edge_vision.optimize.quantization.graph_edit import with_outputs
from edge_vision.optimize.quantization.graph_session import session

_BINS = 1024
_SHARES = np.linspace(1.0, 0.3, 29)
"""Of each limit of the range."""
_STEPS = 255
_OF_TRANSFORMERS = ("LayerNormalization", "Softmax")


def clipped_ranges(
    model: Any,
    ranges: Mapping[str, tuple[float, float]],
    tensors: Sequence[np.ndarray],
    show: Count = no_count,
) -> dict[str, tuple[float, float]]:
    """The ranges of least mean squared error, within the given ones, on the input tensors of a folded model.

    show: receives the number of tensors that are done.
    """
    names = _clippable(model, ranges)
    if not names:
        return dict(ranges)
    running, counts = session(with_outputs(model, names)), {name: np.zeros(_BINS) for name in names}
    for number, tensor in enumerate(tensors, 1):
        values = running.run(names, {model.graph.input[0].name: tensor})
        for name, value in zip(names, values, strict=True):
            counts[name] += np.histogram(value[value != 0], _BINS, _with_zero(ranges[name]))[0]
        show(number, len(tensors))
    return {**ranges, **{name: _least_error(counts[name], ranges[name]) for name in names}}


def _clippable(model: Any, ranges: Mapping[str, tuple[float, float]]) -> list[str]:
    """What nodes before the tail make, and the tail does not read, of finite, not empty range; nothing of a
    transformer."""
    kept = {*tail_inputs(model), *(name for node in tail_nodes(model) for name in node.output)}
    if any(n.op_type in _OF_TRANSFORMERS and kept.isdisjoint(n.output) for n in model.graph.node):
        return []
    made = [name for node in model.graph.node for name in node.output if name not in kept]
    widths = {name: np.diff(_with_zero(ranges[name]))[0] for name in made if name in ranges}
    return [name for name, width in widths.items() if 0.0 < width < np.inf]


def _with_zero(bounds: tuple[float, float]) -> tuple[float, float]:
    """As quantizers extend a range: zero is exact."""
    return min(0.0, bounds[0]), max(0.0, bounds[1])


def _least_error(counts: np.ndarray, bounds: tuple[float, float]) -> tuple[float, float]:
    """The range of least error. counts: of values other than zero, evenly over the bounds."""
    low, high = _with_zero(bounds)
    edges = np.linspace(low, high, len(counts) + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    lows, highs = (low * _SHARES if low else np.zeros(1)), (high * _SHARES if high else np.zeros(1))
    # Of each limit: what is cut off there, and the number of values.
    below = [counts @ np.square(np.minimum(centres - one, 0)) for one in lows]
    above = [counts @ np.square(np.maximum(centres - one, 0)) for one in highs]
    width = highs[None] - lows[:, None]
    inside = np.array([[counts[(centres >= a) & (centres <= b)].sum() for b in highs] for a in lows])
    error = inside * np.square(width / _STEPS) / 12 + np.add.outer(np.array(below), np.array(above))
    at = np.unravel_index(np.argmin(error), error.shape)
    return float(lows[at[0]]), float(highs[at[1]])
