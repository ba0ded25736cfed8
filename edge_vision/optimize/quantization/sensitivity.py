"""Trial: finds the layers that int8 affects most, and how few of them must stay in fp32.

Each layer is quantized alone while all others stay in fp32: the effect on the outputs (SQNR) and on the
predictions (agreement) is its sensitivity. Then the k most sensitive layers stay in fp32; bisection finds the
least k that loses no more than a share of int8's loss, as agreement grows with k (if noise breaks that, more
layers than necessary stay). A share rather than an absolute bound, because clips differ in difficulty: the
loss on the calibration clip predicts little about other clips, but the same layers help there.

Layers with most of the arithmetic never all stay in fp32: the graph would hardly be faster than fp32 or fp16,
which agree more. If the bound requires more, as many layers stay as allowed, and the result states it.

A clip has few objects, and each is either above the score threshold or below it, so a single threshold is a
coarse measure: a detector's agreement here is the mean over thresholds around its own.

Source of the order: Wu et al., "Integer Quantization for Deep Learning Inference" (2020), 6.1, partial
quantization. Only the calibration clip is used, never the evaluation clips.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edge_vision.bundles.store import load_bundle
from edge_vision.optimize.data.clips import read_images
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization import graph_session
from edge_vision.optimize.quantization.decoding_tail import LAYER_OPS
from edge_vision.optimize.quantization.int8_recipe import Int8Recipe
from edge_vision.optimize.quantization.layer_inputs import multiplications
from edge_vision.optimize.quantization.layer_quantizer import LayerQuantizer, layer_quantizer
from edge_vision.optimize.quantization.make_variant import input_tensors
from edge_vision.optimize.quantization.quantization_loss import LAYER_IMAGES, QuantizationLoss
from edge_vision.optimize.records import decoded
from edge_vision.optimize.trials.executor import PROGRESS

MAX_FP32_ARITHMETIC = 0.4
"""Share of the multiplications that may stay in fp32."""


@dataclass(frozen=True, slots=True)
class SensitivityTask:
    """source: bundle folder. calibration, tuning: folders with images. ranges: file. loss_share: of int8's
    loss that may remain."""

    source: str
    recipe: Int8Recipe
    calibration: str
    tuning: str
    ranges: str
    loss_share: float


@dataclass(frozen=True, slots=True)
class LayerSensitivity:
    """position: in graph order. sqnr_db, agreement: with this layer alone in int8. arithmetic: share of all
    multiplications."""

    name: str
    op: str
    position: int
    sqnr_db: float
    agreement: float
    arithmetic: float


@dataclass(frozen=True, slots=True)
class SearchStep:
    """The agreement with the fp32_layers most sensitive layers in fp32."""

    fp32_layers: int
    agreement: float


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """layers: the most sensitive first. steps: of the search for `bound`, in order. fp32_layers,
    fp32_nodes: that stay in fp32. satisfied: whether they reach the bound."""

    layers: tuple[LayerSensitivity, ...]
    steps: tuple[SearchStep, ...]
    bound: float
    fp32_layers: tuple[str, ...]
    fp32_nodes: tuple[str, ...]
    satisfied: bool

    @property
    def final_agreement(self) -> float:
        """With the selected layers in fp32, on the calibration clip."""
        return {step.fp32_layers: step.agreement for step in self.steps}[len(self.fp32_layers)]


def run(task: SensitivityTask) -> Sensitivity:
    """Rank the layers, and search for the fewest in fp32. Raises OptimizeError, BundleError."""
    bundle = load_bundle(f"{task.source}{os.sep}")
    spec, file = bundle.manifest.input, Path(task.ranges)
    folded = graph_session.folded(bundle.verify(bundle.manifest.graphs[0]))
    tensors = input_tensors(spec, read_images(Path(task.calibration)))
    quantizer = layer_quantizer(folded, tensors, task.recipe, file)
    loss = QuantizationLoss(bundle, folded, input_tensors(spec, read_images(Path(task.tuning))))
    if not quantizer.nodes:
        raise OptimizeError("the graph has no convolution or matrix product to quantize")
    found = file.with_suffix(f".{task.recipe.largest_weight}.layers.jsonl")
    return _search(ranked(quantizer, loss, _log, found), quantizer, loss, task.loss_share)


def ranked(
    quantizer: LayerQuantizer, loss: QuantizationLoss, show: Callable[[str], None], file: Path | None = None
) -> tuple[LayerSensitivity, ...]:
    """The sensitivity of each layer, the most sensitive first. show: receives the progress. file: keeps each
    one, so that an interrupted search continues; of the same graph, images and recipe."""
    known = {layer.name: layer for layer in _stored(file)} if file else {}
    ops = {node.name: node.op_type for node in quantizer.model.graph.node}
    counts = multiplications(quantizer.model, LAYER_OPS)
    total = max(1, sum(counts[name] for name in quantizer.nodes))
    layers = []
    for position, name in enumerate(quantizer.nodes):
        show(f"{position}/{len(quantizer.nodes)} layers")
        if name in known:
            layers.append(known[name])
            continue
        agreement, sqnr_db = loss.of(quantizer.alone(name), LAYER_IMAGES)
        share = round(counts[name] / total, 5)
        layers.append(
            LayerSensitivity(name, ops[name], position, round(sqnr_db, 2), round(agreement, 4), share)
        )
        if file:
            _store(layers[-1], file)
    return tuple(sorted(layers, key=lambda layer: layer.sqnr_db))


def _stored(file: Path) -> Iterator[LayerSensitivity]:
    """One layer per line; the last line may be incomplete after a kill."""
    for line in file.read_text("utf-8", "replace").split("\n") if file.is_file() else ():
        try:
            yield decoded(LayerSensitivity, json.loads(line), strict=True)
        except (ValueError, TypeError, KeyError, AttributeError):
            continue


def _store(layer: LayerSensitivity, file: Path) -> None:
    with file.open("a", encoding="utf-8") as opened:
        # A line of its own, also behind an incomplete one.
        opened.write(f"\n{json.dumps(asdict(layer))}\n")


def _search(
    layers: tuple[LayerSensitivity, ...], quantizer: LayerQuantizer, loss: QuantizationLoss, loss_share: float
) -> Sensitivity:
    names = [layer.name for layer in layers]

    def agreement_with(k: int) -> float:
        _log(f"search, {k} of {len(names)} layers in fp32")
        return loss.of(quantizer.without(names[:k]))[0]

    int8_agreement = agreement_with(0)
    bound = 1.0 - loss_share * (1.0 - int8_agreement)
    limit = max_fp32_layers([layer.arithmetic for layer in layers])
    k, tried = bisect(limit, bound, lambda k: int8_agreement if k == 0 else agreement_with(k))
    return Sensitivity(
        layers,
        tuple(SearchStep(n, round(value, 4)) for n, value in tried.items()),
        round(bound, 4),
        tuple(names[:k]),
        quantizer.nodes_of(names[:k]),
        tried[k] >= bound,
    )


def max_fp32_layers(arithmetic: Sequence[float]) -> int:
    """How many of the first layers have at most MAX_FP32_ARITHMETIC together, but at least one."""
    return max(1, int(np.searchsorted(np.cumsum(arithmetic), MAX_FP32_ARITHMETIC + 1e-9, side="right")))


def bisect(n: int, bound: float, agreement_with: Callable[[int], float]) -> tuple[int, dict[int, float]]:
    """The least k of 0..n whose agreement reaches the bound, n if none does; and the agreement of each k
    that was tried, in order."""
    tried: dict[int, float] = {0: agreement_with(0)}
    if tried[0] >= bound:
        return 0, tried
    low, step = 0, 1
    # Few layers are sensitive: doubling the first steps brackets the answer from below.
    while step < n:
        tried[step] = agreement_with(step)
        if tried[step] >= bound:
            break
        low, step = step, step * 2
    high = min(step, n)
    if high not in tried:
        tried[high] = agreement_with(high)
    while high - low > 1:
        middle = (low + high) // 2
        tried[middle] = agreement_with(middle)
        if tried[middle] >= bound:
            high = middle
        else:
            low = middle
    return high, tried


def summary(sensitivity: Sensitivity) -> str:
    """The result of the search in one sentence."""
    kept = len(sensitivity.fp32_layers)
    if not kept:
        return "mixed precision: no layer improves int8 on the calibration clip, so none stays in fp32"
    share = sum(layer.arithmetic for layer in sensitivity.layers[:kept])
    layers = len(sensitivity.layers)
    worst = ", ".join(f"{layer.name} ({layer.sqnr_db:.0f} dB alone)" for layer in sensitivity.layers[:2])
    text = (
        f"mixed precision: {kept} of {layers} layers stay in fp32, {share:.0%} of the arithmetic, the most "
        f"sensitive: {worst}"
    )
    if sensitivity.satisfied:
        return text
    return (
        f"{text}: the most that pays off, as fp16 weights agree more than a graph with more fp32 layers and "
        f"are as fast; agreement on the calibration clip {sensitivity.final_agreement:.3f}, bound "
        f"{sensitivity.bound:.3f}"
    )


def _log(text: str) -> None:
    print(f"{PROGRESS} {text}", file=sys.stderr, flush=True)
