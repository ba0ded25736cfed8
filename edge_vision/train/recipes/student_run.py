"""A specialised detector: the teacher cut to some classes and pruned, or a new small network; both trained.

It is judged on later time ranges of the clips, and on another scene, where it is not expected to be right:
the bundle states what it is valid for, and the detector node compares it with the teacher at run time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.bundles.store import Bundle
from edge_vision.core.model_spec import ValidFor
from edge_vision.detect.heads.decoding import ACTIVATIONS
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.processor import cpu_flags
from edge_vision.optimize.quantization import graph_session, ptq
from edge_vision.optimize.quantization.decoding_tail import tail_inputs
from edge_vision.optimize.quantization.input_moments import input_moments
from edge_vision.optimize.quantization.int8_recipe import int8_recipe
from edge_vision.optimize.quantization.stored_graph import stored_bytes
from edge_vision.train.data.time_split import evenly_read
from edge_vision.train.graph.batch_norm import NormalisedConvolutions
from edge_vision.train.graph.torch_graph import TorchGraph, written_back
from edge_vision.train.networks.cutting import class_columns, cut, cut_bundle, wanted_ids
from edge_vision.train.networks.family import student
from edge_vision.train.networks.pruning import prune
from edge_vision.train.recipes.detection_loss import detector_loss, has_logits, loss_near_teacher
from edge_vision.train.recipes.distillation import ParameterGroup, Progress
from edge_vision.train.recipes.prune_run import least_agreement
from edge_vision.train.recipes.run_folder import BUNDLE, INT8
from edge_vision.train.recipes.training_report import (
    Quality,
    TrainingReport,
    right_on_labels,
    worse_than_untuned,
)
from edge_vision.train.recipes.training_request import TrainingRequest
from edge_vision.train.recipes.training_run import MOVED_PX, Log, TrainingRun

Loss = Callable[..., Any]
CUT_INT8, UNTUNED, TUNED, TUNED_INT8 = "teacher int8", "student, untuned", "student", "student int8"
_PRUNED_RATE, _NEW_RATE = 3e-4, 5e-3
"""Of Adam, for the weights."""
_OTHER_IMAGES = 60
_LEAST_SAMPLES = 2
"""Samples with an object of a class, without which nothing is learned of it."""


def run_student(
    folder: Path, request: TrainingRequest, log: Log, show: Callable[[str], None]
) -> TrainingReport:
    """Train, judge, and write bundle/ (fp32), int8/ and report.json. Raises as TrainingRun does."""

    def teacher(parent: Bundle, cut_folder: Path) -> Bundle:
        return cut_bundle(parent, cut_folder, request.classes, request.levels)

    def whole(parent: Bundle) -> Any:
        """With all feature maps: what --levels loses is a loss, too."""
        model = graph_session.folded(parent.verify(parent.manifest.graphs[0]))
        return cut(model, class_columns(parent), wanted_ids(parent.labels, request.classes))

    return _run(TrainingRun(folder, request, log, show, teacher, whole), log)


def _run(run: TrainingRun, log: Log) -> TrainingReport:
    run.outputs = list(run.source.manifest.head.outputs.values())
    near = None if run.request.width else loss_near_teacher(run, features=True)
    loss = near or detector_loss(run.source)
    ceiling = run.noise_ceiling()
    figures: dict[str, Any] = {"ceiling": ceiling, "expected_agreement": ceiling}
    if run.request.levels:
        figures["levels_agreement"] = _checked_levels(run, ceiling, log)
    _warn_of_absent(run, log)
    _check_classes(run)
    log("quantizing the teacher")
    whole = graph_session.folded(run.parent.verify(run.parent.manifest.graphs[0]))
    teacher_int8, cut_int8 = _nearest_int8(whole, run), run.ptq(run.folded, "teacher")
    untuned, tuned, progress = (_new if run.request.width else _pruned)(run, cut_int8, loss)
    int8 = run.ptq(tuned, f"student_{progress.step}")
    models = {CUT_INT8: cut_int8, UNTUNED: untuned, TUNED: tuned, TUNED_INT8: int8}
    qualities = {name: run.quality(model) for name, model in models.items()}
    ratios = run.time_ratios(int8, teacher_int8)
    figures |= {
        "bytes": len(stored_bytes(int8)),
        "other_agreement": {clip: _elsewhere(run, int8, clip) for clip in run.request.other},
    }
    found, judged = qualities[TUNED_INT8], len(run.judge_images)
    right = right_on_labels(found, qualities[CUT_INT8], run.labelled, judged)
    refused = _refusal(found, ceiling, ratios[run.request.runtime], right, run.request.anyway)
    note = worse_than_untuned(qualities[UNTUNED], qualities[TUNED], run.labelled)
    report = run.report(qualities, ratios, progress, refused, figures, note)
    valid_for = ValidFor(_teacher_name(run), run.source.labels, scene=_scene(report))
    run.write(report, {BUNDLE: (tuned, "fp32"), INT8: (int8, "int8")}, cut_int8, valid_for)
    return report


def _checked_levels(run: TrainingRun, ceiling: float, log: Log) -> float:
    """How well the teacher without some feature maps agrees with the whole one, where that is worse: on
    validation or judge images. Raises OptimizeError if that is too little, before anything is trained."""
    losses = run.judged_on(run.validation_images, "validation images, all feature maps"), run.judge
    worst = round(min(loss.of(run.folded)[0] for loss in losses), 4)
    least, _ = least_agreement(ceiling)
    if worst < least:
        text = (
            f"--levels {run.request.levels}: expected an agreement of {least:.3f} or more with all feature "
            f"maps, got {worst:.3f}: the clips have larger objects: pass a higher --levels, or 0 for all"
        )
        if not run.request.anyway and not run.labelled:
            raise OptimizeError(f"{text}, or --anyway")
        log(text)
    return worst


def _warn_of_absent(run: TrainingRun, log: Log) -> None:
    """Name the classes that the teacher does not detect on the few images that it has seen before the samples
    are made, which takes minutes."""
    found = run.validation.found_classes | run.judge.found_classes
    absent = [label for i, label in enumerate(run.source.labels) if i not in found]
    if absent:
        images = len(run.validation_images) + len(run.judge_images)
        log(
            f"{', '.join(absent)}: not detected on the {images} images to validate and to judge; a class "
            f"that the samples lack, too, is an error"
        )


def _check_classes(run: TrainingRun) -> None:
    """Raise OptimizeError if the teacher sees nothing of a class in the samples."""
    columns = class_columns(run.source)
    scores = run.samples().targets[columns.output][..., columns.first : columns.first + columns.classes]
    best = np.asarray(scores, np.float32).max(axis=1)
    to_raw = ACTIVATIONS["sigmoid" if has_logits(run.source) else "none"][1]
    least = to_raw(run.source.manifest.thresholds.score_threshold)
    counts = (best >= least).sum(axis=0)
    absent = [label for label, n in zip(run.source.labels, counts, strict=True) if n < _LEAST_SAMPLES]
    if absent:
        raise OptimizeError(
            f"expected objects of each class in the clips, got none of {', '.join(absent)}: leave it out of "
            f"--classes, or add a --video that has it"
        )


def _nearest_int8(model: Any, run: TrainingRun) -> Any:
    """The int8 graph for its time alone: its weights are not fitted."""
    return ptq.quantize(
        model, ptq.calibrate(model, run.calibration[:2]), int8_recipe(run.request.runtime, cpu_flags())
    )


def _pruned(run: TrainingRun, cut_int8: Any, loss: Loss) -> tuple[Any, Any, Progress]:
    """Untuned and tuned graph of the teacher without some of its channels."""
    model = run.folded
    if run.request.share:
        moments = input_moments(model, run.calibration, {}, run.counter("inputs of the layers: images"))
        times, show = run.cached_times(cut_int8), run.counter("ordering channels:")
        model = prune(model, moments, times, run.request.share, show)
    return model, *run.tuned(model, _PRUNED_RATE, loss)


def _new(run: TrainingRun, cut_int8: Any, loss: Loss) -> tuple[Any, Any, Progress]:
    """Untuned and tuned graph of a network of our family."""
    request = run.request
    model = student(run.folded, request.width, request.depth, request.seed)
    batches = NormalisedConvolutions(model, tail_inputs(model))
    graph = TorchGraph(model, run.outputs, batches.operators)

    def tuned() -> Any:
        return written_back(model, batches.folded(graph.trained()))

    groups = groups_of_new(graph, batches)
    start_rare(model, run, graph)
    progress = run.distil(graph, groups, run.validated(tuned, loss), loss)
    return model, tuned(), progress


def groups_of_new(graph: TorchGraph, batches: NormalisedConvolutions) -> list[ParameterGroup]:
    """The parameters of a new network, and statistics, which only checkpoints need."""
    return [
        ParameterGroup([*graph.weights.values(), *batches.scales.values()], _NEW_RATE),
        ParameterGroup([one for pair in batches.statistics.values() for one in pair], 0.0),
    ]


def start_rare(model: Any, run: TrainingRun, graph: TorchGraph) -> None:
    """Start with low scores: objects are rare (Lin et al., "Focal Loss", 2017)."""
    import torch

    for name in tail_inputs(model, [class_columns(run.source).output]):
        with torch.no_grad():
            graph.weights[f"{name}.bias"].fill_(-4.0)


def _elsewhere(run: TrainingRun, int8: Any, clip: str) -> float | None:
    """F1 on another scene; None if the teacher detects nothing there."""
    try:
        images = evenly_read(clip, _OTHER_IMAGES, run.show)
        return round(run.judged_on(images, "images of another scene").of(int8)[0], 4)
    except OptimizeError:
        return None


def _refusal(quality: Quality, ceiling: float, ratio: float, right: bool, anyway: bool = False) -> str:
    """Why the student is no replacement; "" = it is one. right: on labels. anyway: its bundles are written
    all the same."""
    if quality.agreement < ceiling and not right:
        return (
            f"expected an agreement of {ceiling:.4f} or more, the teacher's with itself when the picture "
            f"moves by {MOVED_PX:g} px, got {quality.agreement:.4f}: pass a lower --share, a "
            f"higher --width, more --steps or clips{', or --anyway' * (not anyway)}"
        )
    if ratio >= 1:
        return f"expected a faster graph than the teacher's int8, got {ratio:.2f} of its time: raise --share"
    return ""


def _teacher_name(run: TrainingRun) -> str:
    """As given: a name of the store, or a folder; of a .onnx file the copy in the output."""
    given = run.request.model
    return str(run.folder / "source") if given.endswith(".onnx") else given


def _scene(report: TrainingReport) -> str:
    clips: Sequence[Mapping[str, Any]] = report.train
    return hashlib.sha256(" ".join(one["sha256"] for one in clips).encode()).hexdigest()[:16]
