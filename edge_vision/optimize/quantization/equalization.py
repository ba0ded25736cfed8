"""Channel equalization: channels of a tensor that share one int8 scale get ranges of the same width.

A channel with a narrow range gets few of the 256 steps. Where only layers that pass on a factor lie between
the weights before and after, its weights before are multiplied by a factor and those after divided by it: the
outputs stay the same, and inference costs the same.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019), 4.1,
here with measured ranges of activations instead of those of weights, and through sums and pools. Activations
with an upper bound (ReLU6) do not pass on factors: on other scenes they would cut off more than before.
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_vision.offline.onnx_writer import import_onnx
from edge_vision.offline.progress import Count, no_count
from edge_vision.optimize.quantization import graph_session
from edge_vision.optimize.quantization.graph_edit import read_within, with_outputs

MAX_FACTOR = 8.0
"""A channel that is almost constant on the calibration images may not be so elsewhere. Of the shipped
models CenterNet has factors that this limits."""
_PASSING = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity")
_FLATTENING = ("Flatten", "Reshape", "Squeeze")

Factors = Mapping[str, np.ndarray]
"""Of each group of tensors, by its first one: (channels,) float32, from 1 to MAX_FACTOR."""


@dataclass(eq=False, slots=True)
class _Group:
    """Tensors whose channels have common factors, and the layers that write and read them."""

    tensors: list[str] = field(default_factory=list)
    writers: list[Any] = field(default_factory=list)
    readers: list[Any] = field(default_factory=list)


def channel_factors(
    model: Any, tensors: Sequence[np.ndarray], quantized: Collection[str], show: Count = no_count
) -> dict[str, np.ndarray]:
    """The factors for a folded model, from its input tensors. quantized: tensors that get a scale. show:
    receives the number of tensors that are done."""
    groups = [(group, [t for t in group.tensors if t in quantized]) for group in _groups(model)]
    groups = [(group, names) for group, names in groups if names]
    names = sorted({name for _, found in groups for name in found})
    if not names:
        return {}
    lows, highs = _channel_ranges(model, names, tensors, show)
    found = {}
    for group, own in groups:
        widths = np.stack([highs[name] - lows[name] for name in own])
        widest = widths.max(1, keepdims=True)
        used = (widest > 0) & np.isfinite(widest)
        share = np.divide(widths, widest, out=np.ones_like(widths), where=used).max(0)
        factor = 1.0 / np.clip(share, 1.0 / MAX_FACTOR, 1.0)
        found[group.tensors[0]] = np.where(np.isfinite(factor), factor, 1.0).astype(np.float32)
    return found


def _channel_ranges(
    model: Any, names: list[str], tensors: Sequence[np.ndarray], show: Count
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Minimum and maximum of each channel, or 0."""
    session = graph_session.session(with_outputs(model, names))
    given = model.graph.input[0].name
    lows: dict[str, np.ndarray] = {}
    highs: dict[str, np.ndarray] = {}
    for number, tensor in enumerate(tensors, 1):
        for name, values in zip(names, session.run(names, {given: tensor}), strict=True):
            others = tuple(axis for axis in range(values.ndim) if axis != 1)
            lows[name] = np.minimum(lows.get(name, 0.0), values.min(others))
            highs[name] = np.maximum(highs.get(name, 0.0), values.max(others))
        show(number, len(tensors))
    return lows, highs


def fits(model: Any, factors: Factors) -> bool:
    """Whether they can be the factors of this model."""
    shapes = {one.name: list(one.dims) for one in model.graph.initializer}
    channels = {group.tensors[0]: _channels(group, shapes) for group in _groups(model)}
    return all(
        channels.get(name) == {len(one)} and bool(np.all((one >= 1.0) & (one <= MAX_FACTOR)))
        for name, one in factors.items()
    )


def equalized(model: Any, factors: Factors) -> Any:
    """A copy of a folded model with these factors in its weights; its outputs are the same."""
    model = copy.deepcopy(model)
    weights = {one.name: one for one in model.graph.initializer}
    numpy_helper = import_onnx().numpy_helper

    def scale(name: str, factor: np.ndarray) -> None:
        values = numpy_helper.to_array(weights[name])
        weights[name].CopyFrom(numpy_helper.from_array(np.asarray(values * factor, np.float32), name))

    for group in _groups(model):
        factor = factors.get(group.tensors[0])
        if factor is None:
            continue
        for node in group.writers:
            scale(node.input[1], factor.reshape(-1, 1, 1, 1))
            if len(node.input) > 2:
                scale(node.input[2], factor)
        for node in group.readers:
            scale(node.input[1], _of_inputs(node, list(weights[node.input[1]].dims), 1.0 / factor))
    return model


def _of_inputs(node: Any, shape: list[int], factor: np.ndarray) -> np.ndarray:
    """The factors of a layer's input channels, to multiply its weights with."""
    if node.op_type == "Gemm":
        return factor[None]
    groups = _attribute(node, "group", 1)
    each = factor.reshape(groups, 1, shape[1], 1, 1)
    return np.broadcast_to(each, (groups, shape[0] // groups, shape[1], 1, 1)).reshape(
        shape[0], shape[1], 1, 1
    )


def _attribute(node: Any, name: str, default: int) -> int:
    return next((one.i for one in node.attribute if one.name == name), default)


def _is_plain(gemm: Any) -> bool:
    """Whether its weights are (outputs, inputs)."""
    return bool(_attribute(gemm, "transB", 0)) and not _attribute(gemm, "transA", 0)


def _groups(model: Any) -> list[_Group]:
    """The groups that can have factors, in graph order."""
    graph = model.graph
    shapes = {one.name: list(one.dims) for one in graph.initializer}
    outside = {value.name for value in (*graph.input, *graph.output)} | read_within(graph)
    uses = Counter([*outside, *(name for node in graph.node for name in node.input)])
    fixed = outside | shapes.keys()
    flattened = _flattened(graph)
    links = _Links()
    writers: dict[str, list[Any]] = defaultdict(list)
    readers: dict[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        given, made = node.input[0] if node.input else "", node.output[0]
        own = all(uses[name] == 1 and name in shapes for name in node.input[1:])
        rank = len(shapes.get(node.input[1], ())) if own and len(node.input) > 1 else 0
        if node.domain not in ("", "ai.onnx"):
            fixed.update((*node.input, *node.output))
        elif node.op_type == "Conv" and rank == 4:
            readers[given].append(node)
            writers[made].append(node)
            links.add(given), links.add(made)
        elif node.op_type == "Gemm" and rank == 2 and _is_plain(node):
            readers[given].append(node)
            links.add(given)
            fixed.add(made)
        elif node.op_type in _PASSING or made in flattened:
            links.join(given, made)
        elif node.op_type == "Add":
            for name in node.input:
                links.join(name, made)
        else:
            fixed.update((*node.input, *node.output))
    groups = [
        _Group(
            names,
            [node for name in names for node in writers[name]],
            [node for name in names for node in readers[name]],
        )
        for names in links.groups()
        if not fixed.intersection(names)
    ]
    return [one for one in groups if one.writers and one.readers and len(_channels(one, shapes)) == 1]


def _flattened(graph: Any) -> set[str]:
    """What only matrix products read of one image's globally pooled channels, in their order."""
    readers: dict[str, set[str]] = defaultdict(set)
    for node in graph.node:
        for name in node.input:
            readers[name].add(node.op_type)
    pooled = {node.output[0] for node in graph.node if node.op_type == "GlobalAveragePool"}
    dims = [dim.dim_value for value in graph.input for dim in value.type.tensor_type.shape.dim[:1]]
    made = (node for node in graph.node if node.op_type in _FLATTENING and node.input[0] in pooled)
    return {node.output[0] for node in made if readers[node.output[0]] == {"Gemm"} and dims[:1] == [1]}


class _Links:
    """Disjoint sets of names."""

    def __init__(self) -> None:
        self._sets: dict[str, list[str]] = {}

    def add(self, name: str) -> list[str]:
        return self._sets.setdefault(name, [name])

    def join(self, name: str, other: str) -> None:
        one, more = self.add(name), self.add(other)
        if one is not more:
            one += more
            self._sets.update(dict.fromkeys(more, one))

    def groups(self) -> list[list[str]]:
        return list({id(one): one for one in self._sets.values()}.values())


def _channels(group: _Group, shapes: Mapping[str, list[int]]) -> set[int]:
    """How many channels the layers of a group write and read."""
    written = {shapes[node.input[1]][0] for node in group.writers}
    return written | {shapes[node.input[1]][1] * _attribute(node, "group", 1) for node in group.readers}
