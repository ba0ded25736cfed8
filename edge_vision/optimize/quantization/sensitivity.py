"""Job: which layers int8 hurts most, and how few must stay in fp32 to lose no more than a share.

Each layer is quantized alone, all others stay in fp32: what that does to the outputs (SQNR) and to what is
found (agreement) is its sensitivity. Then the most sensitive k layers stay in fp32; the least k that loses
no more than a share of what int8 loses is found by bisection, as agreement grows with k (where noise breaks
that, more stay than need to). A share, because one clip is harder than another: what int8 loses on the
calibration clip says little of what it loses elsewhere, but what helps there helps elsewhere.

Layers that hold most of the arithmetic are never kept all: the graph would hardly be faster than
fp32 or fp16, which agree more. Where the bound asks for more, as many stay as may, and that is said.

A clip has few objects, and each crosses the score threshold or does not: one threshold would tell little. So
a detector's agreement here is the mean over thresholds around its own.

Source of the order: Wu et al., "Integer Quantization for Deep Learning Inference" (2020), 6.1, partial
quantization. All on the calibration clip: the clips to judge on are not looked at.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.backends.base import TensorSpec
from edge_vision.backends.parity import sqnr_db
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.core.detections import Detections
from edge_vision.detect.heads import DetectionHead, Head, make_head
from edge_vision.optimize.agreement import of_detections, of_scores
from edge_vision.optimize.clips import stored
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization import graph_session, ptq
from edge_vision.optimize.quantization.int8_recipe import Int8Recipe
from edge_vision.optimize.quantization.layer_inputs import multiplications
from edge_vision.optimize.quantization.variant import input_tensors, known_fits, known_ranges

LAYER_PICTURES = 6
"""Looked at for each layer; the search looks at all."""

THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(-4, 5))
"""Added to the detector's own."""

MOST_ARITHMETIC = 0.4
"""Share of the multiplications that may stay in fp32."""

Outputs = dict[str, np.ndarray]


def run(args: Mapping[str, Any]) -> dict[str, Any]:
    """args: source (folder), recipe, calibration, tuning (folders), ranges (file), share: of int8's loss that
    may stay.

    Returns layers (name, op, sqnr_db, agreement, place in the graph, arithmetic as a share; most sensitive
    first), search (k and agreement of each try), kept (names of layers), nodes (of those), holds (the bound).
    Raises OptimizeError, BundleError.
    """
    bundle = load_bundle(f"{args['source']}{os.sep}")
    spec, recipe = bundle.manifest.input, Int8Recipe(**args["recipe"])
    path = bundle.verify(bundle.manifest.graphs[0])
    folded = graph_session.folded(path)
    tensors, file = input_tensors(spec, stored(Path(args["calibration"]))), Path(args["ranges"])
    ranges = known_ranges(folded, tensors, file)
    fits = known_fits(folded, ranges, recipe, tensors, file)
    judge = _Judge(bundle, folded, input_tensors(spec, stored(Path(args["tuning"]))))
    groups = ptq.layers(folded)
    if not groups:
        raise OptimizeError("the graph has no convolution or matrix product to quantize")
    ops = {node.name: node.op_type for node in folded.graph.node}
    counts = multiplications(folded, ptq.LAYER_OPS)
    total = max(1, sum(counts[name] for name in groups))
    layers = []
    for place, (name, nodes) in enumerate(groups.items()):
        print(f"progress: {place}/{len(groups)} layers", file=sys.stderr, flush=True)
        alone = ptq.quantized(folded, ranges, recipe, only=nodes, fits=fits)
        value, noise_db = judge.of(alone, LAYER_PICTURES)
        layers.append(
            {
                "name": name,
                "op": ops[name],
                "place": place,
                "sqnr_db": round(noise_db, 2),
                "agreement": round(value, 4),
                "arithmetic": round(counts[name] / total, 5),
            }
        )
    layers.sort(key=lambda layer: layer["sqnr_db"])
    order = [str(layer["name"]) for layer in layers]

    def agreement_with(k: int) -> float:
        print(f"progress: search, {k} of {len(order)} layers in fp32", file=sys.stderr, flush=True)
        nodes = [node for name in order[:k] for node in groups[name]]
        return judge.of(ptq.quantized(folded, ranges, recipe, kept=nodes, fits=fits))[0]

    plain = agreement_with(0)
    bound = 1.0 - args["share"] * (1.0 - plain)
    most = affordable([float(layer["arithmetic"]) for layer in layers])
    k, tries = bisect(most, bound, lambda k: plain if k == 0 else agreement_with(k))
    kept = order[:k]
    return {
        "layers": layers,
        "search": [{"kept": n, "agreement": round(value, 4)} for n, value in tries],
        "bound": round(bound, 4),
        "kept": kept,
        "nodes": [node for name in kept for node in groups[name]],
        "holds": dict(tries)[k] >= bound,
    }


def affordable(arithmetic: Sequence[float]) -> int:
    """How many of the first layers hold no more than MOST_ARITHMETIC together, but at least one."""
    return max(1, int(np.searchsorted(np.cumsum(arithmetic), MOST_ARITHMETIC + 1e-9, side="right")))


def bisect(
    n: int, bound: float, agreement_with: Callable[[int], float]
) -> tuple[int, list[tuple[int, float]]]:
    """The least k of 0..n whose agreement holds the bound, and all that was tried in order; n where none
    does."""
    tries: dict[int, float] = {0: agreement_with(0)}
    if tries[0] >= bound:
        return 0, list(tries.items())
    low, step = 0, 1
    # Few layers are sensitive: the first steps double, so that the answer is bracketed from below.
    while step < n:
        tries[step] = agreement_with(step)
        if tries[step] >= bound:
            break
        low, step = step, step * 2
    high = min(step, n)
    if high not in tries:
        tries[high] = agreement_with(high)
    while high - low > 1:
        middle = (low + high) // 2
        tries[middle] = agreement_with(middle)
        if tries[middle] >= bound:
            high = middle
        else:
            low = middle
    return high, list(tries.items())


class _Judge:
    """Compares quantized models with the fp32 one on the same tensors, in ONNX Runtime."""

    def __init__(self, bundle: Bundle, folded: Any, tensors: Sequence[np.ndarray]) -> None:
        self._input = bundle.manifest.input.name
        self._thresholds = bundle.manifest.thresholds
        own = self._thresholds.score_threshold
        self._scores = sorted({min(0.95, max(0.05, own + step)) for step in THRESHOLDS})
        # Outputs that no head reads, as a classifier's features, tell nothing.
        self._read = set(bundle.manifest.head.outputs.values())
        self._tensors = tensors
        session = graph_session.session(folded)
        self._names = [output.name for output in session.get_outputs()]
        specs = [
            TensorSpec(o.name, tuple(_side(s) for s in o.shape), "float32") for o in session.get_outputs()
        ]
        self._head: Head = make_head(bundle.manifest.head, bundle.manifest.input, specs, len(bundle.labels))
        self._reference = [self._run(session, tensor) for tensor in tensors]
        self._wanted = [self._decode(outputs) for outputs in self._reference]

    def of(self, model: Any, pictures: int = 0) -> tuple[float, float]:
        """Agreement and mean SQNR in dB, over the first pictures (0 = all) that show something."""
        session = graph_session.session(model)
        chosen = self._telling()[: pictures or None]
        outputs = [self._run(session, self._tensors[i]) for i in chosen]
        read = [name for name in self._names if name in self._read] or self._names
        noise = [
            sqnr_db({n: self._reference[i][n] for n in read}, out)
            for i, out in zip(chosen, outputs, strict=True)
        ]
        return self._agreement([self._decode(out) for out in outputs], chosen), float(np.mean(noise))

    def _telling(self) -> list[int]:
        """A detector's pictures in which it finds something come first, evenly over the clip."""
        if not isinstance(self._head, DetectionHead):
            return list(range(len(self._tensors)))
        with_boxes = [i for i, found in enumerate(self._wanted) if len(found)]
        if not with_boxes:
            raise OptimizeError(
                "the fp32 model finds nothing on the calibration clip: give one that shows what it knows"
            )
        step = max(1, len(with_boxes) // LAYER_PICTURES)
        first = with_boxes[::step][:LAYER_PICTURES]
        return first + [i for i in range(len(self._tensors)) if i not in first]

    def _run(self, session: Any, tensor: np.ndarray) -> Outputs:
        return dict(zip(self._names, session.run(self._names, {self._input: tensor}), strict=True))

    def _decode(self, outputs: Outputs) -> Any:
        """Class scores, or boxes of the lowest threshold: those of a higher one are among them."""
        if isinstance(self._head, DetectionHead):
            lowest = replace(self._thresholds, score_threshold=min(self._scores))
            boxes = self._head.decode(outputs, lowest)
            return Detections(boxes.xyxy_model, boxes.scores, boxes.class_ids)
        return self._head.decode(outputs)

    def _agreement(self, found: list[Any], chosen: Sequence[int]) -> float:
        wanted = [self._wanted[i] for i in chosen]
        if not isinstance(self._head, DetectionHead):
            return of_scores(np.stack(found), np.stack(wanted)).value
        values = []
        for score in self._scores:
            pair = [[_above(one, score) for one in side] for side in (found, wanted)]
            if any(map(len, pair[1])):
                values.append(of_detections(*pair).value)
        return float(np.mean(values))


def _above(found: Detections, score: float) -> Detections:
    keep = found.scores >= score
    return Detections(found.xyxy_px[keep], found.scores[keep], found.class_ids[keep])


def _side(side: Any) -> int | None:
    return side if isinstance(side, int) else None
