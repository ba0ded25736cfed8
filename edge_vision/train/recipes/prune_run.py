"""Structured pruning of a bundle: closed-form pruning, distillation of what is left, a verdict, bundles."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_vision.optimize.quantization.input_moments import input_moments
from edge_vision.optimize.quantization.stored_graph import stored_bytes
from edge_vision.train.networks.pruning import prune, without_smallest
from edge_vision.train.recipes.detection_loss import loss_near_teacher
from edge_vision.train.recipes.run_folder import BUNDLE, INT8
from edge_vision.train.recipes.training_report import (
    Quality,
    TrainingReport,
    right_on_labels,
    worse_than_untuned,
)
from edge_vision.train.recipes.training_request import TrainingRequest
from edge_vision.train.recipes.training_run import MOVED_PX, Log, TrainingRun

TEACHER, UNTUNED, TUNED, TUNED_INT8 = "teacher int8", "pruned, untuned", "pruned", "pruned int8"
MIN_AGREEMENT = 0.9
"""A model below it is no replacement, unless it agrees as much as the teacher with itself when the picture
moves."""
RATE = 3e-4
"""Of Adam, for all weights of a pruned graph."""
UNSTRUCTURED_SHARE = 0.3


def run_prune(
    folder: Path, request: TrainingRequest, log: Log, show: Callable[[str], None]
) -> TrainingReport:
    """Prune, train, judge, and write bundle/ (fp32), int8/ and report.json. Raises as TrainingRun does."""
    return _run(TrainingRun(folder, request, log, show))


def _run(run: TrainingRun) -> TrainingReport:
    teacher_int8 = run.ptq(run.folded, "teacher")
    moments = input_moments(run.folded, run.calibration, {}, run.counter("inputs of the layers: images"))
    times, show = run.cached_times(teacher_int8), run.counter("ordering channels:")
    pruned = prune(run.folded, moments, times, run.request.share, show)
    tuned, progress = run.tuned(pruned, RATE, loss_near_teacher(run, features=True))
    int8 = run.ptq(tuned, f"pruned_{progress.step}")
    models = {TEACHER: teacher_int8, UNTUNED: pruned, TUNED: tuned, TUNED_INT8: int8}
    qualities = {name: run.quality(model) for name, model in models.items()}
    ratios = run.time_ratios(int8, teacher_int8)
    figures: dict[str, Any] = {"unstructured": _unstructured(run, teacher_int8)}
    if run.source.manifest.task == "detect":
        figures["ceiling"] = run.noise_ceiling()
    figures["expected_agreement"], _ = least_agreement(figures.get("ceiling"))
    found, judged = qualities[TUNED_INT8], len(run.judge_images)
    right = right_on_labels(found, qualities[TEACHER], run.labelled, judged)
    refused = _refusal(found, ratios[run.request.runtime], right, figures.get("ceiling"))
    note = worse_than_untuned(qualities[UNTUNED], qualities[TUNED], run.labelled)
    report = run.report(qualities, ratios, progress, refused, figures, note)
    run.write(report, {BUNDLE: (tuned, "fp32"), INT8: (int8, "int8")}, teacher_int8)
    return report


def _unstructured(run: TrainingRun, teacher_int8: Any) -> dict[str, float]:
    """What zeros within the layers would give, for comparison; no bundle is made of it."""
    sparse = without_smallest(teacher_int8, UNSTRUCTURED_SHARE)
    before, after = (len(gzip.compress(stored_bytes(one))) for one in (teacher_int8, sparse))
    return {
        "share": UNSTRUCTURED_SHARE,
        "agreement": run.quality(sparse).agreement,
        "time_ratio": run.time_ratios(sparse, teacher_int8)[run.request.runtime],
        "compressed_bytes": after,
        "teacher_compressed_bytes": before,
    }


def least_agreement(ceiling: float | None, most: float = MIN_AGREEMENT) -> tuple[float, str]:
    """The agreement that a replacement needs, and this as words. ceiling: the teacher's with itself, None of
    a classifier."""
    if ceiling is None:
        return most, f"{most:g} or more"
    itself = f"the teacher's with itself when the picture moves by {MOVED_PX:g} px"
    if ceiling >= most:
        return most, f"{most:g} or more ({itself}: {ceiling:.3f})"
    return ceiling, f"{ceiling:.4f} or more, {itself},"


def _refusal(quality: Quality, ratio: float, right: bool = False, ceiling: float | None = None) -> str:
    """Why the pruned model is no replacement; "" = it is one. right: on labels. ceiling: see
    `least_agreement`."""
    least, words = least_agreement(ceiling)
    if quality.agreement < least and not right:
        return (
            f"expected an agreement of {words} of the pruned int8 graph, got {quality.agreement:.4f}: pass a "
            f"lower --share, more --steps, or more varied clips"
        )
    if ratio >= 1:
        return f"expected a faster graph than the teacher's int8, got {ratio:.2f} of its time: raise --share"
    return ""
