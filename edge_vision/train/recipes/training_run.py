"""What the recipes share: request, data, PTQ, distillation, verdict, bundles with their lineage."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_vision.backends.runtimes.engine_cache import write_file
from edge_vision.bundles.store import Bundle
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import InputSpec, ValidFor
from edge_vision.core.preprocess import Preprocessor
from edge_vision.offline.bundle_folder import write_folder
from edge_vision.offline.output_folder import remove_path
from edge_vision.offline.progress import Count
from edge_vision.optimize.candidate import Size
from edge_vision.optimize.data.clips import tiles
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.processor import cpu_flags
from edge_vision.optimize.quantization import graph_session
from edge_vision.optimize.quantization.decoding_tail import tail_inputs
from edge_vision.optimize.quantization.int8_recipe import int8_recipe
from edge_vision.optimize.quantization.layer_quantizer import LayerQuantizer, layer_quantizer
from edge_vision.optimize.quantization.make_variant import (
    input_tensors,
    name_without_variant,
    write_variant,
)
from edge_vision.optimize.quantization.quantization_loss import QuantizationLoss
from edge_vision.optimize.quantization.stored_graph import stored_bytes
from edge_vision.train.cpu_clock import CpuClock
from edge_vision.train.data.label_correction import LabelCorrection
from edge_vision.train.data.labels import LabelledImages, label_boxes, teachable
from edge_vision.train.data.teacher import LabelledTargets, TeacherSamples, cached_samples
from edge_vision.train.data.time_split import check_clips, split
from edge_vision.train.graph.batch_norm import BATCHED
from edge_vision.train.graph.torch_graph import TorchGraph, written_back
from edge_vision.train.networks.cutting import CLASS_ROLES
from edge_vision.train.networks.timing import installed_runtimes, shared_layer_times, time_ratio
from edge_vision.train.recipes.distillation import Distillation, ParameterGroup, Progress
from edge_vision.train.recipes.run_folder import (
    BUNDLE,
    CHECKPOINT,
    CPU_TIME,
    CUT,
    INT8,
    RANGES,
    REPORT,
    SAMPLES,
    TEACHER_INT8,
    prepared_source,
    stored_choice,
)
from edge_vision.train.recipes.training_report import Quality, TrainingReport
from edge_vision.train.recipes.training_request import TrainingRequest
from edge_vision.train.same_options import read_stored

_CALIBRATION_IMAGES = 32
_VALIDATION_PERIOD, _VALIDATION_IMAGES = 6, 40
"""Every so many train images, one is not trained on, at most so many: the best state is chosen by them. The
last ones of each clip would tell more of other scenes, but their absence costs more than that."""
_TIMED_ROUNDS = 48
_CORRECTED = ("prune", "student")
"""Recipes whose targets labels correct: those that may become another network than the teacher."""
MOVED_PX = 2.0
"""An image that moves by this much changes the teacher's own boxes: no model can agree better."""

Log = Callable[[str], None]


class TrainingRun:
    """The state of one run in its folder. parent: as given. source, folded: the teacher. outputs: the tensors
    that are compared."""

    def __init__(
        self,
        folder: Path,
        request: TrainingRequest,
        log: Log,
        show: Callable[[str], None],
        cut: Callable[[Bundle, Path], Bundle] | None = None,
        judged_by: Callable[[Bundle], Any] | None = None,
    ) -> None:
        """Continues an interrupted run of the same request. log, show: receive lines, and progress. cut:
        writes the teacher for a student to a new folder. judged_by: makes, of the bundle as given, the folded
        graph whose boxes the verdict expects; default the teacher.

        Raises OptimizeError, also if the folder has results of another request, BundleError, SourceError.
        """
        self.folder, self.request, self._log, self._given_show = folder, request, log, show
        runtimes = installed_runtimes()
        if request.runtime not in runtimes:
            raise OptimizeError(
                f"--runtime: expected an installed one of {', '.join(runtimes)}, got {request.runtime}"
            )
        log(f"reading {request.model} and the clips")
        check_clips(request.videos, request.judge, request.other)
        self.parent = self.source = prepared_source(folder, request, log)
        # After the check: a finished run of the same request stays as it was.
        self._clock = CpuClock(folder / CPU_TIME, read_stored(folder / REPORT).get("cpu_s"))
        if cut:
            self.source = cut(self.parent, folder / CUT)
        self._spec, self._task = self.source.manifest.input, self.source.manifest.task
        self.folded = graph_session.folded(self.source.verify(self.source.manifest.graphs[0]))
        self._expected = judged_by(self.parent) if judged_by else self.folded
        self.outputs = tail_inputs(self.folded)
        self._data = split(request.videos, request.judge, request.frames, request.judge_frames, self.show)
        train = self._teachable()
        period = max(_VALIDATION_PERIOD, -(-len(train) // _VALIDATION_IMAGES))
        validation = train[::period]
        self._train = [i for number, i in enumerate(train) if number % period]
        self.validation_images = tuple(self._data.train[i] for i in validation)
        self._images = [self._data.train[i] for i in self._train]
        self.calibration = self.calibration_tensors(self._spec)
        crops = f" ({len(tiles(self._data.judge))} crops)" if self._task == "classify" else ""
        log(
            f"{len(self._images)} frames to train, {len(self.validation_images)} to validate, "
            f"{len(self._data.judge)} to judge{crops}, of other time ranges"
        )
        if self.labelled:
            log(
                "labels: {train} pictures to train, {judge} to judge, {left_out} left out".format(
                    **self.labelled
                )
            )
        self.judge = self.judged_on(self.judge_images, "judge images")
        self.validation = self._corrected_loss(validation)

    def show(self, text: str) -> None:
        """Show the progress."""
        self._given_show(text)
        self._clock.update()

    def counter(self, what: str) -> Count:
        """Shows how much is done. what: is counted."""
        return lambda done, total: self.show(f"{what} {done}/{total}")

    def _teachable(self) -> list[int]:
        """The train images, of which labels correct the teacher, or without those on which they prove it
        wrong."""
        data, everything = self._data, list(range(len(self._data.train)))
        self.correction: LabelCorrection | None = None
        self._labelled: LabelledImages | None = None
        self.labelled: dict[str, int] = {}
        trained, judged = (
            sum(one is not None for one in labels) for labels in (data.train_labels, data.judge_labels)
        )
        if self._task != "detect" or not trained + judged:
            return everything
        corrects = self.request.recipe in _CORRECTED and self.source.manifest.head.type in CLASS_ROLES
        if corrects and trained:
            self.correction = LabelCorrection(self.source, self.folded)
        kept = everything
        if not corrects:
            show = self.counter("teacher on reviewed images")
            kept = teachable(self.source, self.folded, data.train, data.train_labels, show)
        left_out = len(data.train) - len(kept)
        self.labelled = {"train": trained - left_out, "judge": judged, "left_out": left_out}
        show = self.counter("reviewed judge images")
        labelled = LabelledImages(self.source, data.judge, data.judge_labels, show)
        self._labelled = labelled if any(map(len, labelled.expected)) else None
        return kept

    def _boxes(self, numbers: Sequence[int]) -> list[Detections | None]:
        """The labels of train images."""
        labels = [self._data.train_labels[i] for i in numbers]
        return [None if one is None else label_boxes(one, self.source.labels) for one in labels]

    def _corrected_loss(self, numbers: Sequence[int]) -> QuantizationLoss:
        """The loss on train images against the teacher as labels correct it."""
        images, correction = [self._data.train[i] for i in numbers], self.correction
        what = "validation images"
        if correction is None:
            return self.loss_on(images, what)
        boxes, preprocessor = self._boxes(numbers), Preprocessor(self._spec)

        def corrected(number: int, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            labels = boxes[number]
            if labels is None:
                return outputs
            _, transform = preprocessor.prepare(Frame(images[number], 0, ""))
            return correction.corrected(outputs, labels, transform).outputs

        return QuantizationLoss(self.source, self.folded, self.tensors(images), corrected, self.counter(what))

    @property
    def judge_images(self) -> tuple[np.ndarray, ...]:
        """(h, w, 3) uint8 BGR."""
        return self._data.judge

    def calibration_tensors(self, spec: InputSpec) -> list[np.ndarray]:
        """Of some of the train images, for an input of any size."""
        step = max(1, len(self._images) // _CALIBRATION_IMAGES)
        return self.tensors(self._images[::step][:_CALIBRATION_IMAGES], spec)

    def tensors(self, images: Sequence[np.ndarray], spec: InputSpec | None = None) -> list[np.ndarray]:
        """Input tensors, of a classifier those of parts. spec: default the teacher's."""
        return input_tensors(spec or self._spec, tiles(images) if self._task == "classify" else images)

    def loss_on(self, images: Sequence[np.ndarray], what: str) -> QuantizationLoss:
        """The loss against the teacher. what: these images are, for the progress."""
        tensors = self.tensors(images)
        return QuantizationLoss(self.source, self.folded, tensors, show=self.counter(what))

    def judged_on(self, images: Sequence[np.ndarray], what: str) -> QuantizationLoss:
        """As `loss_on`, with the boxes that the verdict expects."""
        if self._expected is self.folded:
            return self.loss_on(images, what)
        tensors, session = self.tensors(images), graph_session.session(self._expected)
        names = [one.name for one in session.get_outputs()]

        def expected(number: int, _: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return dict(zip(names, session.run(names, {self._spec.name: tensors[number]}), strict=True))

        return QuantizationLoss(self.source, self.folded, tensors, expected, self.counter(what))

    def ptq(self, model: Any, name: str, spec: InputSpec | None = None) -> Any:
        """The int8 graph of a folded model. name: of its cached ranges. spec: default the teacher's input."""
        return self.quantizer(model, name, spec).without(())

    def quantizer(self, model: Any, name: str, spec: InputSpec | None = None) -> LayerQuantizer:
        """Of any part of a folded model; see `ptq`."""
        tensors = self.calibration_tensors(spec) if spec else self.calibration
        file = self.folder / RANGES / f"{name}.json"
        recipe = int8_recipe(self.request.runtime, cpu_flags())
        return layer_quantizer(model, tensors, recipe, file, self.counter)

    def cached_times(self, model: Any) -> dict[str, float]:
        """The shares of its layers in its time. Stored, as a continued run must prune the same channels."""
        show = self.counter("times of the layers: runtimes")
        times: dict[str, float] = stored_choice(
            self.folder,
            "times.json",
            Mapping[str, float],
            lambda: shared_layer_times(model, self.calibration[0], show),
        )
        return times

    def samples(
        self, name: str = SAMPLES, teacher: Any = None, spec: InputSpec | None = None
    ) -> TeacherSamples:
        """Augmented images with the teacher's outputs, cached in the folder. teacher, spec: of another
        size."""
        request = self.request
        labelled = None
        if self.correction:
            labelled = LabelledTargets(self.correction, self._boxes(self._train))
        found = cached_samples(
            self.folder / name,
            teacher or self.folded,
            self.outputs,
            self._images,
            spec or self._spec,
            self._task,
            request.samples,
            request.seed,
            lambda what, done, total: self.show(f"{what}: {done}/{total} samples"),
            labelled,
            self._log,
        )
        self.labelled.update(found.corrections)
        return found

    def distil(
        self,
        student: Any,
        groups: Sequence[ParameterGroup],
        score: Callable[[], float],
        loss: Callable[..., Any] | None = None,
        *,
        samples: TeacherSamples | None = None,
        checkpoint: str = CHECKPOINT,
        steps: int = 0,
        what: str = "training",
        averages: bool = True,
    ) -> Progress:
        """Train the student, a module with the outputs. score: see `validated`. loss: of a detector's
        outputs. steps: 0 = those of the request. what: is trained, for the progress. averages: see
        Distillation."""
        request, steps = self.request, steps or self.request.steps
        logits = self.source.manifest.head.outputs.get("logits", "") if self._task == "classify" else ""
        training = Distillation(
            student,
            groups,
            samples or self.samples(),
            score,
            self.folder / checkpoint,
            logits if logits in self.outputs else "",
            loss,
            averages,
        )

        def show(step: int, value: float, left_s: float) -> None:
            self.show(f"{what}: step {step}/{steps}, loss {value:.2g}, {left_s:.0f} s left")

        try:
            return training.run(steps, request.batch, request.seed, show)
        finally:
            self._clock.write()

    def validated(
        self, model: Callable[[], Any], loss: Any, validation: QuantizationLoss | None = None, images: int = 0
    ) -> Callable[[], float]:
        """The score of a model as it is now: SQNR on the validation images; with a loss of its own, F1."""
        used = validation or self.validation
        return lambda: used.of(model(), images)[0 if loss else 1]

    def tuned(
        self,
        model: Any,
        rate: float,
        loss: Callable[..., Any] | None = None,
        validation: QuantizationLoss | None = None,
        images: int = 0,
        **training: Any,
    ) -> tuple[Any, Progress]:
        """The graph after distillation of all its weights. See `distil` and `validated`."""
        graph = TorchGraph(model, self.outputs, BATCHED)
        groups = [ParameterGroup(list(graph.weights.values()), rate)]
        score = self.validated(lambda: written_back(model, graph.trained()), loss, validation, images)
        progress = self.distil(graph, groups, score, loss, **training)
        return written_back(model, graph.trained()), progress

    def quality(self, model: Any) -> Quality:
        """On the judge images."""
        map50 = self._labelled.map50(model) if self._labelled else None
        agreement, sqnr = (round(value, 4) for value in self.judge.of(model))
        return Quality(agreement, sqnr, map50)

    def noise_ceiling(self) -> float:
        """The F1 of a detecting teacher with itself on the judge images when these move by MOVED_PX."""
        images = [
            cv2.warpAffine(
                one,
                np.array([[1, 0, MOVED_PX], [0, 1, 0]], np.float32),
                (one.shape[1], one.shape[0]),
                borderMode=cv2.BORDER_REPLICATE,
            )
            for one in self._data.judge
        ]
        width_px = images[0].shape[1]
        scaled = MOVED_PX * self._spec.width_px / width_px
        return round(self.judge.of_moved(self._expected, self.tensors(images), scaled), 4)

    def time_ratios(self, model: Any, other: Any) -> dict[str, float]:
        """Runtime -> time of the first graph by that of the other."""
        tensor = self.calibration[0]

        def show(name: str) -> Count:
            return self.counter(f"measuring times, {name}: loads")

        return {
            name: round(time_ratio(name, model, tensor, other, tensor, _TIMED_ROUNDS, show(name)), 3)
            for name in installed_runtimes()
        }

    def report(
        self,
        qualities: Mapping[str, Quality],
        time_ratios: Mapping[str, float],
        progress: Progress,
        refused: str,
        figures: Mapping[str, Any] = {},
        note: str = "",
    ) -> TrainingReport:
        """The report of this run, without a file."""
        self._clock.write()
        return TrainingReport(
            self.parent.name,
            self.parent.manifest.graphs[0].sha256,
            self.request,
            tuple(asdict(one) for one in self._data.train_ranges),
            tuple(asdict(one) for one in self._data.judge_ranges),
            len(self.tensors(self._data.judge)),
            qualities,
            time_ratios,
            tuple(progress.curve),
            round(self._clock.cpu_s, 1),
            progress.stopped,
            refused,
            figures,
            self.labelled,
            len(self._data.judge),
            note,
            progress.best_step,
        )

    def write(
        self,
        report: TrainingReport,
        bundles: Mapping[str, tuple[Any, str]],
        teacher_int8: Any,
        valid_for: ValidFor | None = None,
    ) -> None:
        """Write the report, and the bundles unless refused. bundles: folder -> model and precision."""
        for name in (BUNDLE, INT8):
            remove_path(self.folder / name)
        if not report.refused or self.request.anyway:
            for name, (model, precision) in bundles.items():
                self.write_bundle(name, model, precision, report, valid_for)
        write_file(self.folder / TEACHER_INT8, stored_bytes(teacher_int8))
        write_file(self.folder / REPORT, (json.dumps(asdict(report), indent=1) + "\n").encode())

    def write_bundle(
        self,
        name: str,
        model: Any,
        precision: str,
        report: TrainingReport,
        valid_for: ValidFor | None = None,
        spec: InputSpec | None = None,
    ) -> None:
        """Write a bundle with its lineage. name: folder within the run's. spec: default the teacher's."""
        unfinished = self.folder / f"{Path(name).name}.unfinished"
        remove_path(unfinished)
        data = stored_bytes(model)
        spec = spec or self._spec
        bundle = write_variant(self.source, unfinished, data, spec, precision)
        lineage = {key: value for key, value in asdict(report).items() if key != "curve"}
        recipe = self.request.recipe
        suffix = f"_{recipe}_{precision}_{Size.of(spec)}"
        # As YAML has them: lists instead of tuples.
        figures = {"train": json.loads(json.dumps(lineage))}
        base = name_without_variant(self.source.name)
        manifest = replace(
            bundle.manifest,
            name=f"{base[: 64 - len(suffix)]}{suffix}",
            description=f"{self.source.manifest.description}; {recipe}, {precision}, {Size.of(spec)}",
            figures=figures,
            valid_for=valid_for,
        )
        files = {file.name: file.read_bytes() for file in unfinished.iterdir() if file.name != "bundle.yaml"}
        remove_path(unfinished)
        write_folder(unfinished, manifest, files)
        (self.folder / name).parent.mkdir(exist_ok=True)
        remove_path(self.folder / name)  # Of a run that was killed before its report.
        unfinished.rename(self.folder / name)
