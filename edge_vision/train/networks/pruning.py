"""Structured pruning: inner channels of a graph that no other layer reads are removed, the rest is refitted.

An inner channel lies between a convolution and the 1x1 convolutions that project it, with activations and
depthwise convolutions between: one projection in an inverted residual, several where heads read a feature
map. What a projection loses is a closed form in the second moments of its inputs: the channels with the
least loss go, one after another, and the remaining weights and the bias compensate. How many go in each
layer: the least loss for the time saved. A residual block may also go as a whole: what it adds on average
stays. Its loss is relative to the sum, not to what the block adds.

Sources: Hassibi and Stork, "Second Order Derivatives for Network Pruning: Optimal Brain Surgeon" (1993);
Frantar and Alistarh, "Optimal Brain Compression" (2022).
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from edge_vision.offline.onnx_writer import import_onnx
from edge_vision.offline.progress import Count, no_count
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization.input_moments import InputMoments
from edge_vision.train.networks.cutting import remove_unused

_ACTIVATIONS = ("Clip", "Relu", "LeakyRelu", "HardSwish")
STEP = 32
"""Channels are kept in multiples of this: int8 kernels compute so many at once; or half of it."""
_DAMPING, _BLOCK = 0.01, 64
_MOST_VALUES = 1 << 16
"""In a feature map that is stored for each sample."""


@dataclass(frozen=True, slots=True)
class InnerChannels:
    """Names of the nodes around inner channels: first makes them, the projections read them."""

    first: str
    depthwise: tuple[str, ...]
    projections: tuple[str, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """All of them."""
        return self.first, *self.depthwise, *self.projections


@dataclass(frozen=True, slots=True, eq=False)
class Elimination:
    """order: channels, the first to go first. loss (k + 1,): without the first n. cost: of one channel.
    residual: whether all of them may go."""

    order: np.ndarray
    loss: np.ndarray
    cost: float
    residual: bool = False

    def counts(self) -> np.ndarray:
        """How many may go, ascending."""
        k = len(self.order)
        kept = [one for one in (STEP // 2, *range(STEP, k, STEP)) if one < k]
        return np.array([0, *(k - one for one in reversed(kept)), *([k] * self.residual)])


def chains(model: Any) -> list[InnerChannels]:
    """The chains of a folded model, in graph order."""
    graph = model.graph
    constants = {one.name: one for one in graph.initializer}
    outputs = {value.name for value in graph.output}
    readers: dict[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)

    def is_layer(node: Any) -> bool:
        return node.op_type == "Conv" and all(
            one in constants and len(readers[one]) == 1 for one in node.input[1:]
        )

    def follow(name: str, depthwise: list[str], projections: list[str]) -> bool:
        """Collect the layers up to the projections; False if others read the channels."""
        if name in outputs or not readers[name]:
            return False
        for node in readers[name]:
            if node.input[0] != name or not (is_layer(node) or node.op_type in _ACTIVATIONS):
                return False
            dims = list(constants[node.input[1]].dims) if node.op_type == "Conv" else []
            if dims and _group(node) == 1:
                if dims[2:] != [1, 1]:
                    return False
                projections.append(node.name)
                continue
            if dims and (dims[1] != 1 or _group(node) != dims[0]):
                return False
            depthwise += [node.name] if dims else []
            if not follow(node.output[0], depthwise, projections):
                return False
        return True

    found = []
    for node in graph.node:
        depthwise: list[str] = []
        projections: list[str] = []
        first = is_layer(node) and _group(node) == 1
        if first and follow(node.output[0], depthwise, projections):
            found.append(InnerChannels(node.name, tuple(depthwise), tuple(projections)))
    return found


def block_outputs(model: Any) -> list[str]:
    """The tensors behind blocks with inner channels, which pruning does not make smaller: of each shape the
    last one, if it is not large; none where several heads or an activation follow, or without positions.
    What one block projects may be the inner channels of the next one: these are none, either."""
    graph = model.graph
    inferred = import_onnx().shape_inference.infer_shapes(model).graph
    dims = {one.name: one.type.tensor_type.shape.dim for one in inferred.value_info}
    found: dict[tuple[int, ...], str] = {}
    blocks = chains(model)
    inner = {chain.first for chain in blocks}
    for chain in blocks:
        if len(chain.projections) > 1 or chain.projections[0] in inner:
            continue
        projection = find_node(model, chain.projections[0])
        name = (_residual(model, chain) or projection).output[0]
        readers = {node.op_type for node in graph.node if projection.output[0] in node.input}
        shape = tuple(one.dim_value for one in dims.get(name, ()))
        if readers.isdisjoint(_ACTIVATIONS) and np.prod(shape[2:]) > 1 and np.prod(shape) <= _MOST_VALUES:
            found[shape] = name
    return list(found.values())


def _group(node: Any) -> int:
    return next((one.i for one in node.attribute if one.name == "group"), 1)


def prune(
    model: Any,
    moments: Mapping[str, InputMoments],
    costs: Mapping[str, float],
    share: float,
    show: Count = no_count,
) -> Any:
    """A copy of the folded model with about this share of the costs removed.

    moments: of the projections' inputs. costs: by node, such as the times. A channel costs its share of its
    layers. show: see `eliminations`. Raises OptimizeError if the inner channels are too few.
    """
    found = chains(model)
    steps = eliminations(model, found, moments, costs, show)
    total = sum(costs.values())
    most = sum(int(one.counts()[-1]) * one.cost for one in steps)
    if most < share * total:
        possible = math.floor(100 * most / total) / 100
        raise OptimizeError(
            f"--share {share:g}: expected at most {possible:g}, the share of this model's time that "
            f"its inner channels can save: use a lower --share"
        )
    removed = allocate(steps, share * total)
    pruned = copy.deepcopy(model)
    for chain, step, count in zip(found, steps, removed, strict=True):
        keep(pruned, chain, step.order[count:], moments)
    del pruned.graph.value_info[:]
    return pruned


def keep(model: Any, chain: InnerChannels, channels: np.ndarray, moments: Mapping[str, InputMoments]) -> None:
    """Keep these channels alone; without any, the block is left out. moments: of all layers."""
    mean = moments[chain.projections[0]].fp32_mean[0]
    if not len(channels):
        _leave_out(model, chain, mean)
    elif len(channels) < len(mean):
        _remove_channels(model, chain, np.sort(channels), moments)


def allocate(steps: Sequence[Elimination], wanted: float) -> list[int]:
    """How many channels go of each chain: the least loss of all that saves so much cost, if they can."""

    def chosen(price: float) -> list[int]:
        """price: loss that a unit of cost is worth."""
        return [
            int(one.counts()[np.argmin(one.loss[one.counts()] - price * one.cost * one.counts())])
            for one in steps
        ]

    def saved(counts: Sequence[int]) -> float:
        return sum(count * one.cost for count, one in zip(counts, steps, strict=True))

    low, high = 1e-15, 1e6
    for _ in range(80):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if saved(chosen(middle)) >= wanted else (middle, high)
    return chosen(high)


def array(model: Any, node: Any, index: int) -> np.ndarray:
    one = next(one for one in model.graph.initializer if one.name == node.input[index])
    return np.asarray(import_onnx().numpy_helper.to_array(one))


def find_node(model: Any, name: str) -> Any:
    return next(node for node in model.graph.node if node.name == name)


def eliminations(
    model: Any,
    found: Sequence[InnerChannels],
    moments: Mapping[str, InputMoments],
    costs: Mapping[str, float],
    show: Count = no_count,
) -> list[Elimination]:
    """The order in which the channels of each chain go. moments: of all layers. show: receives the number of
    channels that are ordered."""
    steps: list[Elimination] = []
    channels = [len(moments[chain.projections[0]].fp32_mean[0]) for chain in found]
    for chain in found:
        before = sum(channels[: len(steps)])
        counted = partial(_show_after, show, before, sum(channels))
        steps.append(_eliminated(model, chain, moments, costs, counted))
    return steps


def _show_after(show: Count, before: int, total: int, done: int) -> None:
    show(before + done, total)


def _eliminated(
    model: Any,
    chain: InnerChannels,
    moments: Mapping[str, InputMoments],
    costs: Mapping[str, float],
    show: Callable[[int], None],
) -> Elimination:
    layers = [
        (array(model, find_node(model, name), 1)[:, :, 0, 0].astype(np.float64), centred(moments[name]))
        for name in chain.projections
    ]
    total = _residual(model, chain)
    power = _power(model, total.output[0], moments) if total else 0.0
    order, loss = eliminate(layers, power, show)
    cost = sum(costs.get(name, 0.0) for name in chain.layers) / len(order)
    return Elimination(order, loss, cost, total is not None)


def _residual(model: Any, chain: InnerChannels) -> Any:
    """The node that adds the chain's output to its input; None = there is none."""
    block_input = find_node(model, chain.first).input[0]
    output = find_node(model, chain.projections[0]).output[0]
    readers = [node for node in model.graph.node if output in node.input]
    if len(readers) != 1 or readers[0].op_type not in ("Add", "Sum"):
        return None
    return readers[0] if sorted(readers[0].input) == sorted((block_input, output)) else None


def _power(model: Any, name: str, moments: Mapping[str, InputMoments]) -> float:
    """The variance of a tensor, from a 1x1 convolution that reads it; 0 without one."""
    for node in model.graph.node:
        if name in node.input[:1] and node.op_type == "Conv" and node.name in moments and _group(node) == 1:
            one = moments[node.name]
            if one.second.size and list(array(model, node, 1).shape[2:]) == [1, 1]:
                return float(np.trace(centred(one)))
    return 0.0


def _leave_out(model: Any, chain: InnerChannels, mean: np.ndarray) -> None:
    """Add the chain's mean output instead of the chain. mean: of the inputs of the projection."""
    projection, total = find_node(model, chain.projections[0]), _residual(model, chain)
    constant = array(model, projection, 1)[:, :, 0, 0] @ mean
    if len(projection.input) > 2:
        constant = constant + array(model, projection, 2)
    block_input, name = find_node(model, chain.first).input[0], f"{projection.name}.mean"
    values = constant.astype(np.float32)[None, :, None, None]
    model.graph.initializer.append(import_onnx().numpy_helper.from_array(values, name))
    del total.input[:]
    total.input.extend([block_input, name])
    total.op_type = "Add"
    remove_unused(model)


def centred(moments: InputMoments) -> np.ndarray:
    """(k, k) covariance of a layer's inputs: the bias compensates the mean."""
    mean = moments.fp32_mean[0]
    return np.asarray(moments.second[0] - np.outer(mean, mean), np.float64)


def eliminate(
    layers: Sequence[tuple[np.ndarray, np.ndarray]],
    least_power: float = 0.0,
    show: Callable[[int], None] = lambda done: None,
) -> tuple[np.ndarray, np.ndarray]:
    """The order in which inputs go, and the loss without the first n: -log of the share of variance kept.

    layers: weights (outputs, k) and covariance (k, k) of each projection. least_power: the variance that a
    loss is relative to, if the outputs have less. show: receives the number of inputs that are done.
    """
    k = len(layers[0][1])
    damped = [_damped(covariance) for _, covariance in layers]
    inverses, left = [_Inverse(one) for one in damped], [weights.copy() for weights, _ in layers]
    powers = [
        max(float(np.einsum("oi,ij,oj->", weights, one, weights)), least_power, 1e-12)
        for (weights, _), one in zip(layers, damped, strict=True)
    ]
    alive, order, losses = np.ones(k, bool), [], np.zeros((len(layers), k + 1))
    for number in range(k):
        each = [
            np.square(weights).sum(0) / np.maximum(inverse.diagonal, 1e-12) / power
            for weights, inverse, power in zip(left, inverses, powers, strict=True)
        ]
        i = int(np.where(alive, np.sum(each, 0), np.inf).argmin())
        losses[:, number + 1] = losses[:, number] + [one[i] for one in each]
        for weights, inverse in zip(left, inverses, strict=True):
            weights -= np.outer(weights[:, i], inverse.removed(i))
        alive[i] = False
        order.append(i)
        show(len(order))
    # Losses of layers multiply: the signal that is left of a layer is 1 - loss.
    return np.array(order), -np.log(np.maximum(1.0 - losses, 1e-12)).sum(0)


class _Inverse:
    """The inverse of a covariance (k, k) from which inputs are removed: symmetric updates of rank one, which
    are applied many at once, as a product of matrices."""

    def __init__(self, covariance: np.ndarray) -> None:
        self._matrix = np.linalg.inv(covariance)
        self.diagonal = np.diag(self._matrix).copy()
        self._updates = np.zeros((len(covariance), _BLOCK))
        self._count = 0

    def removed(self, i: int) -> np.ndarray:
        """(k,) by how much of the weight of i the other weights change."""
        n, power = self._count, max(self.diagonal[i], 1e-12)
        column = self._matrix[:, i] - self._updates[:, :n] @ self._updates[i, :n]
        self._updates[:, n] = column / np.sqrt(power)
        self.diagonal -= np.square(self._updates[:, n])
        self._count += 1
        if self._count == _BLOCK:
            self._matrix -= self._updates @ self._updates.T
            self._count = 0
        return np.asarray(column / power)


def _damped(covariance: np.ndarray) -> np.ndarray:
    k = len(covariance)
    return np.asarray(covariance + (_DAMPING * np.trace(covariance) / k + 1e-9) * np.eye(k))


def refitted(weights: np.ndarray, covariance: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """(outputs, kept): the weights of the kept inputs whose outputs are nearest to those of all inputs."""
    damped = _damped(covariance)
    return np.linalg.solve(damped[np.ix_(kept, kept)], damped[kept] @ weights.T).T


def _remove_channels(
    model: Any, chain: InnerChannels, kept: np.ndarray, moments: Mapping[str, InputMoments]
) -> None:
    for name in (chain.first, *chain.depthwise):
        node = find_node(model, name)
        for index in range(1, len(node.input)):
            _set(model, node, index, array(model, node, index)[kept])
        if name in chain.depthwise:
            next(one for one in node.attribute if one.name == "group").i = len(kept)
    for name in chain.projections:
        _refit(model, find_node(model, name), kept, moments[name])


def _refit(model: Any, node: Any, kept: np.ndarray, moments: InputMoments) -> None:
    """Let a projection read these inputs alone."""
    before = array(model, node, 1)[:, :, 0, 0].astype(np.float64)
    if len(node.input) == 2:
        node.input.append(f"{node.name}.bias")
        model.graph.initializer.add().CopyFrom(
            import_onnx().numpy_helper.from_array(np.zeros(len(before), np.float32), node.input[2])
        )
    bias = array(model, node, 2)
    after, mean = refitted(before, centred(moments), kept), moments.fp32_mean[0]
    _set(model, node, 1, after[:, :, None, None].astype(np.float32))
    _set(model, node, 2, (bias + before @ mean - after @ mean[kept]).astype(np.float32))


def _set(model: Any, node: Any, index: int, values: np.ndarray) -> None:
    one = next(one for one in model.graph.initializer if one.name == node.input[index])
    one.CopyFrom(import_onnx().numpy_helper.from_array(np.ascontiguousarray(values), one.name))


def without_smallest(quantized: Any, share: float) -> Any:
    """A copy of an int8 model in which this share of the weights of each layer is zero: the smallest
    integers, which are relative to the largest weight of their channel."""
    numpy_helper = import_onnx().numpy_helper
    sparse = copy.deepcopy(quantized)
    for one in sparse.graph.initializer:
        if len(one.dims) > 1 and one.data_type == import_onnx().TensorProto.INT8:
            values = numpy_helper.to_array(one).copy()
            size = np.abs(values.astype(np.int16)).ravel()
            values.ravel()[np.argsort(size, kind="stable")[: int(share * size.size)]] = 0
            one.CopyFrom(numpy_helper.from_array(values, one.name))
    return sparse
