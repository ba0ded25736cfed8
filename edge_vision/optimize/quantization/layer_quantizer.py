"""A model with everything to quantize any part of it, measured once on calibration images and stored."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.backends.runtimes.engine_cache import write_file
from edge_vision.offline.progress import Count, no_count
from edge_vision.optimize.quantization import gptq, ptq
from edge_vision.optimize.quantization.equalization import Factors, channel_factors, equalized, fits
from edge_vision.optimize.quantization.input_moments import Ranges, input_moments
from edge_vision.optimize.quantization.int8_recipe import Int8Recipe
from edge_vision.optimize.quantization.stem import stem_layers

_GPTQ_IMAGES = 32
"""Images whose layer inputs are used: more cost time and do not change the accuracy."""

Counter = Callable[[str], Count]
"""Takes what is counted, such as `ranges: images`; returns what shows the count."""


def _no_counter(what: str) -> Count:
    return no_count


@dataclass(frozen=True, slots=True, eq=False)
class LayerQuantizer:
    """model: folded and equalized, in fp32."""

    model: Any
    ranges: Ranges
    recipe: Int8Recipe
    rounding: Mapping[str, gptq.RoundedWeights]

    @property
    def nodes(self) -> dict[str, tuple[str, ...]]:
        """By layer, as `ptq.quantized_layers`."""
        return ptq.quantized_layers(self.model, self.recipe)

    def alone(self, layer: str) -> Any:
        """With this layer alone in int8."""
        return self._quantized(only=self.nodes[layer])

    def without(self, layers: Sequence[str]) -> Any:
        """With these layers in fp32."""
        return self.without_nodes(self.nodes_of(layers))

    def without_nodes(self, nodes: Sequence[str]) -> Any:
        """With these nodes in fp32."""
        return self._quantized(fp32_nodes=nodes)

    def _quantized(self, **nodes: Sequence[str]) -> Any:
        return ptq.quantize(self.model, self.ranges, self.recipe, rounding=self.rounding, **nodes)

    @property
    def stem(self) -> tuple[str, ...]:
        """The layers that the recipe leaves in fp32."""
        return stem_layers(self.model) if self.recipe.fp32_stem else ()

    def nodes_of(self, layers: Sequence[str]) -> tuple[str, ...]:
        nodes = self.nodes
        return tuple(node for layer in layers for node in nodes[layer])


def layer_quantizer(
    folded: Any,
    tensors: Sequence[np.ndarray],
    recipe: Int8Recipe,
    file: Path,
    counter: Counter = _no_counter,
) -> LayerQuantizer:
    """The quantizer of a folded model, from its input tensors. file: keeps what was measured, next to it also
    the rounded weights of each kind of recipe; of the same model and tensors. Raises OptimizeError."""
    stored = read_statistics(file)
    known = {one.name for one in folded.graph.input}.union(*(one.output for one in folded.graph.node))
    if stored and stored[1].keys() <= known and fits(folded, stored[0]):
        factors, ranges = stored
        model = equalized(folded, factors)
    else:
        show = counter("channels: images")
        factors = channel_factors(folded, tensors, ptq.quantized_tensors(folded), show)
        model = equalized(folded, factors)
        ranges = ptq.calibrate(model, tensors, counter("ranges: images"))
        write_statistics(factors, ranges, file)
    return LayerQuantizer(model, ranges, recipe, _rounding(model, ranges, recipe, tensors, file, counter))


def _rounding(
    model: Any,
    ranges: Ranges,
    recipe: Int8Recipe,
    tensors: Sequence[np.ndarray],
    statistics: Path,
    counter: Counter,
) -> dict[str, gptq.RoundedWeights]:
    """The stored rounded weights of this kind of recipe, or new ones, which are stored."""
    file = statistics.with_suffix(f".{recipe.largest_weight}{'s' * recipe.symmetric}.npz")
    rounding = gptq.read_rounding(file)
    if rounding is None:
        chosen = tensors[:: -(-len(tensors) // _GPTQ_IMAGES)]
        moments = input_moments(model, chosen, ranges, counter("inputs of the layers: images"))
        nearest = ptq.quantize(model, ranges, replace(recipe, fp32_stem=False))
        show = counter("rounding weights: layers")
        rounding = gptq.round_weights(model, nearest, moments, recipe.largest_weight, show)
        gptq.write_rounding(rounding, file)
    return rounding


def write_statistics(factors: Factors, ranges: Ranges, file: Path) -> None:
    """Store them for the next graph of this size."""
    content = {
        "factors": {name: one.tolist() for name, one in factors.items()},
        "ranges": {name: list(pair) for name, pair in ranges.items()},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, json.dumps(content).encode())


def read_statistics(file: Path) -> tuple[dict[str, np.ndarray], dict[str, tuple[float, float]]] | None:
    """Factors and ranges that `write_statistics` stored; None if there are none, or damaged ones.

    Without factors: of an earlier version, whose weights, trained or rounded, only fit without them.
    """
    try:
        stored = json.loads(file.read_text("utf-8"))
        found = stored["ranges"] if "factors" in stored else stored
        ranges = {name: (float(low), float(high)) for name, (low, high) in found.items()}
        factors = stored["factors"].items() if "factors" in stored else ()
        arrays = {name: np.array(one, np.float32) for name, one in factors}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    sound = all(math.isfinite(low) and low <= high < math.inf for low, high in ranges.values())
    return (arrays, ranges) if ranges and sound and all(one.ndim == 1 for one in arrays.values()) else None
