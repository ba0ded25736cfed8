"""Quantization-aware training of a bundle: PTQ, distillation with fake quantizers, a verdict, a bundle.

The stem, and in mixed precision further layers, stay in fp32, and are trained as well."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_vision.train.graph.lsq import trainable
from edge_vision.train.graph.torch_graph import written_back
from edge_vision.train.recipes.distillation import ParameterGroup
from edge_vision.train.recipes.mixed import fp32_layers
from edge_vision.train.recipes.run_folder import BUNDLE
from edge_vision.train.recipes.training_report import Quality, TrainingReport
from edge_vision.train.recipes.training_request import TrainingRequest
from edge_vision.train.recipes.training_run import Log, TrainingRun

PTQ_INT8, PTQ, QAT = "PTQ, all in int8", "PTQ", "QAT"
_INTEGER_RATE, _SCALE_RATE, _BIAS_RATE, _FP32_RATE = 2.5e-3, 3e-4, 2e-2, 3e-6
"""Of Adam: steps of weights, logarithms of scales, units of biases, weights of layers in fp32. The last ones
are the teacher's: with 1e-4, many such layers drift away from it (from 29 to 18 dB with 17 of them)."""


def run_qat(folder: Path, request: TrainingRequest, log: Log, show: Callable[[str], None]) -> TrainingReport:
    """Train, judge, and write bundle/ and report.json; see TrainingRun. Raises as it does."""
    return _run(TrainingRun(folder, request, log, show), log)


def _run(run: TrainingRun, log: Log) -> TrainingReport:
    quantizer, mixed = run.quantizer(run.folded, "teacher"), bool(run.request.mixed)
    run.show("quantizing")
    all_int8 = replace(quantizer, recipe=replace(quantizer.recipe, fp32_stem=False)).without(())
    teacher_int8 = quantizer.without(())
    fp32 = fp32_layers(run, quantizer, log) if mixed else ()
    run.show("making the graph trainable")
    quantized = quantizer.without(fp32)
    graph, student = trainable(quantized, quantizer.model, run.outputs)
    names = _weights_of(run.folded, (*quantizer.stem, *fp32)) & graph.weights.keys()
    groups = [
        ParameterGroup([graph.weights[name] for name in sorted(names)], _FP32_RATE),
        ParameterGroup(list(student.integers.values()), _INTEGER_RATE),
        ParameterGroup(list(student.log_scales.values()), _SCALE_RATE),
        ParameterGroup(list(student.biases.values()), _BIAS_RATE),
    ]

    def trained() -> Any:
        weights = {name: value for name, value in graph.trained().items() if name in names}
        return written_back(quantized, student.values() | weights)

    progress = run.distil(graph, groups, run.validated(trained, loss=None))
    tuned = trained()
    before, after = run.quality(quantized), run.quality(tuned)
    figures: dict[str, Any] = {
        "fp32_layers": (*quantizer.stem, *fp32),
        "all_int8_time_ratios": run.time_ratios(tuned, all_int8),
    }
    if mixed:
        figures["fp32_time_ratios"] = run.time_ratios(tuned, run.folded)
    qualities = {PTQ_INT8: run.quality(all_int8), PTQ: before, QAT: after}
    ratios = run.time_ratios(tuned, teacher_int8)
    # One image of a classifier is chance.
    slack = 1.0 / len(run.judge_images) if run.source.manifest.task == "classify" else 0.0
    report = run.report(qualities, ratios, progress, _refusal(before, after, slack), figures)
    run.write(report, {BUNDLE: (tuned, "mixed" if mixed else "int8")}, teacher_int8)
    return report


def _weights_of(model: Any, layers: Collection[str]) -> set[str]:
    """The names of all inputs of these layers."""
    return {name for node in model.graph.node if node.name in layers for name in node.input}


def _refusal(before: Quality, after: Quality, slack: float = 0.0) -> str:
    """Why the trained model is no improvement; "" = it is one. It may be worse than PTQ in no figure, but for
    this much agreement."""
    figures = [("agreement", before.agreement - slack, after.agreement)]
    if before.map50 is not None and after.map50 is not None:
        figures.append(("AP50 on reviewed images", before.map50, after.map50))
    if after.sqnr_db >= before.sqnr_db and all(found >= least - 1e-9 for _, least, found in figures):
        return ""
    least = ", ".join(f"{name} {least:.3f}" for name, least, _ in figures)
    found = ", ".join(f"{found:.3f}" for _, _, found in figures)
    return (
        f"expected at least PTQ's quality on the judge images ({least}, {before.sqnr_db:.2f} dB), "
        f"got {found}, {after.sqnr_db:.2f} dB: use PTQ (`optimize run`), or train on more varied clips"
    )
