"""Quantization-aware training of a bundle: PTQ, distillation with fake quantizers, a verdict, a bundle."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.offline.bundle_folder import write_folder
from edge_vision.offline.output_folder import remove_path
from edge_vision.optimize.clips import tiles
from edge_vision.optimize.errors import DISK_FULL, OptimizeError
from edge_vision.optimize.quantization import graph_session, ptq
from edge_vision.optimize.quantization.decoding_tail import tail_inputs
from edge_vision.optimize.quantization.int8_recipe import cpu_flags, int8_recipe
from edge_vision.optimize.quantization.make_variant import (
    cached_ranges,
    cached_rounding,
    input_tensors,
    write_variant,
)
from edge_vision.optimize.quantization.quantization_loss import QuantizationLoss
from edge_vision.optimize.source import source_bundle
from edge_vision.train.distillation import Distillation, ParameterGroup, Progress
from edge_vision.train.lsq import FakeQuantizers, trainable
from edge_vision.train.teacher import TeacherSamples, cached_samples
from edge_vision.train.time_split import TimeSplit, split
from edge_vision.train.torch_graph import written_back

REQUEST, REPORT, BUNDLE = "request.json", "report.json", "bundle"
_CACHED = ("source", "ranges.json", "samples", "checkpoint.pt", "checkpoint.unfinished", BUNDLE, REPORT)
_CALIBRATION_IMAGES = 32
_VALIDATION_PERIOD = 6
"""Every so many train images, one is not trained on: the best state is chosen by them."""
_INTEGER_RATE, _SCALE_RATE, _BIAS_RATE, _FP32_RATE = 2.5e-3, 3e-4, 2e-2, 1e-5
"""Of Adam: steps of weights, logarithms of scales, units of biases, layers in fp32."""

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class QatRequest:
    """model: name or folder of a bundle, or a .onnx file. videos, judge: clips, bags, folders of images.
    frames, judge_frames, samples: numbers of images; a sample is an augmented frame."""

    model: str
    videos: tuple[str, ...]
    judge: tuple[str, ...] = ()
    steps: int = 300
    batch: int = 8
    samples: int = 640
    frames: int = 240
    judge_frames: int = 104
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("samples", 8), ("frames", 16), ("judge_frames", 8)):
            if getattr(self, name) < least:
                raise OptimizeError(f"{name}: expected {least} or more, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Quality:
    """Against the fp32 model on the judge images. agreement: F1 of boxes or share of the same best class.
    sqnr_db: signal-to-noise ratio of what the decoding tail reads."""

    agreement: float
    sqnr_db: float


@dataclass(frozen=True, slots=True)
class QatReport:
    """curve: (step, loss, validation SQNR in dB). refused: why there is no bundle, "" = there is one."""

    model: str
    parent_sha256: str
    request: QatRequest
    train: tuple[Mapping[str, Any], ...]
    judge: tuple[Mapping[str, Any], ...]
    judge_images: int
    ptq: Quality
    qat: Quality
    curve: tuple[tuple[int, float, float], ...]
    cpu_s: float
    stopped: str = ""
    refused: str = ""


def run_qat(folder: Path, request: QatRequest, log: Log, show: Callable[[str], None]) -> QatReport:
    """Train, judge and write bundle/ and report.json; an interrupted run of the same request is continued.

    log, show: receive lines, and progress. Raises OptimizeError, BundleError, SourceError.
    """
    try:
        return _Qat(folder, request, log, show).run()
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise OptimizeError(
            f"{folder}: no space left on the disk; free some, or pass fewer --samples, then run the same "
            f"command again"
        ) from None


class _Qat:
    def __init__(self, folder: Path, request: QatRequest, log: Log, show: Callable[[str], None]) -> None:
        self._folder, self._request, self._log, self._show = folder, request, log, show
        self._cpu_s = time.process_time()
        log(f"reading {request.model} and the clips")
        self._source = self._same_request()
        self._spec, self._task = self._source.manifest.input, self._source.manifest.task
        self._folded = graph_session.folded(self._source.verify(self._source.manifest.graphs[0]))
        self._outputs = tail_inputs(self._folded)

    def _same_request(self) -> Bundle:
        """The source bundle; keeps the cache of an earlier run only if it had the same request."""
        text = json.dumps(asdict(self._request), indent=1)
        file = self._folder / REQUEST
        same = file.is_file() and file.read_text("utf-8") == text
        if not same or not (self._folder / "source" / "bundle.yaml").is_file():
            for name in _CACHED:
                remove_path(self._folder / name)
            source_bundle(self._request.model, self._folder / "source")
            file.write_text(text, "utf-8")
        return load_bundle(f"{self._folder / 'source'}{os.sep}")

    def run(self) -> QatReport:
        request = self._request
        data = split(request.videos, request.judge, request.frames, request.judge_frames)
        validation = data.train[::_VALIDATION_PERIOD]
        trained = [image for i, image in enumerate(data.train) if i % _VALIDATION_PERIOD]
        self._log(
            f"{len(trained)} frames to train, {len(validation)} to validate, {len(data.judge)} to judge, of "
            f"other time ranges"
        )
        quantized = self._ptq(trained)
        samples = cached_samples(
            self._folder / "samples",
            self._folded,
            self._outputs,
            trained,
            self._spec,
            self._task,
            request.samples,
            request.seed,
            lambda what, done, total: self._show(f"{what}: {done}/{total} samples"),
        )
        student, progress = self._train(quantized, samples, self._loss_on(validation))
        tuned = written_back(quantized, student.values())
        return self._judged(data, quantized, tuned, progress)

    def _tensors(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return input_tensors(self._spec, tiles(images) if self._task == "classify" else images)

    def _ptq(self, images: Sequence[np.ndarray]) -> Any:
        chosen = images[:: max(1, len(images) // _CALIBRATION_IMAGES)][:_CALIBRATION_IMAGES]
        tensors, file = self._tensors(chosen), self._folder / "ranges.json"
        recipe = int8_recipe("onnxruntime", cpu_flags())
        ranges = cached_ranges(self._folded, tensors, file)
        rounding = cached_rounding(self._folded, ranges, recipe, tensors, file)
        return ptq.quantize(self._folded, ranges, recipe, rounding=rounding)

    def _loss_on(self, images: Sequence[np.ndarray]) -> QuantizationLoss:
        return QuantizationLoss(self._source, self._folded, self._tensors(images))

    def _train(
        self, quantized: Any, samples: TeacherSamples, validation: QuantizationLoss
    ) -> tuple[FakeQuantizers, Progress]:
        graph, student = trainable(quantized, self._folded, self._outputs)
        groups = [
            ParameterGroup(list(student.integers.values()), _INTEGER_RATE),
            ParameterGroup(list(student.log_scales.values()), _SCALE_RATE),
            ParameterGroup(list(student.biases.values()), _BIAS_RATE),
        ]
        training = Distillation(
            graph,
            groups,
            samples,
            lambda: validation.of(written_back(quantized, student.values()))[1],
            self._folder / "checkpoint.pt",
            self._source.manifest.head.outputs.get("logits", "") if self._task == "classify" else "",
        )
        steps = self._request.steps

        def show(step: int, loss: float, left_s: float) -> None:
            self._show(f"training: step {step}/{steps}, loss {loss:.4f}, {left_s:.0f} s left")

        return student, training.run(steps, self._request.batch, self._request.seed, show)

    def _judged(self, data: TimeSplit, quantized: Any, tuned: Any, progress: Progress) -> QatReport:
        judge = self._loss_on(data.judge)
        before, after = (
            Quality(*(round(value, 4) for value in judge.of(model))) for model in (quantized, tuned)
        )
        report = QatReport(
            self._source.name,
            self._source.manifest.graphs[0].sha256,
            self._request,
            tuple(asdict(one) for one in data.train_ranges),
            tuple(asdict(one) for one in data.judge_ranges),
            len(self._tensors(data.judge)),
            before,
            after,
            tuple(progress.curve),
            round(time.process_time() - self._cpu_s, 1),
            progress.stopped,
            _refusal(before, after),
        )
        remove_path(self._folder / BUNDLE)
        if not report.refused:
            self._write_bundle(tuned, report)
        (self._folder / REPORT).write_text(json.dumps(asdict(report), indent=1) + "\n", "utf-8")
        return report

    def _write_bundle(self, tuned: Any, report: QatReport) -> None:
        """The bundle with its lineage."""
        unfinished = self._folder / "bundle.unfinished"
        remove_path(unfinished)
        data = tuned.SerializeToString(deterministic=True)
        bundle = write_variant(self._source, unfinished, data, self._spec, "int8")
        lineage = {key: value for key, value in asdict(report).items() if key != "curve"}
        manifest = replace(
            bundle.manifest,
            name=f"{self._source.name[:60]}_qat",
            figures={"train": {"recipe": "qat", **_plain(lineage)}},
        )
        files = {file.name: file.read_bytes() for file in unfinished.iterdir() if file.name != "bundle.yaml"}
        remove_path(unfinished)
        write_folder(unfinished, manifest, files)
        unfinished.rename(self._folder / BUNDLE)


def _plain(value: Any) -> Any:
    """With lists instead of tuples, as YAML has them."""
    return json.loads(json.dumps(value))


def _refusal(before: Quality, after: Quality) -> str:
    """Why the trained model is no improvement; "" = it is one."""
    if after.sqnr_db < before.sqnr_db or after.agreement < before.agreement:
        return (
            f"expected at least PTQ's quality on the judge images (agreement {before.agreement:.3f}, "
            f"{before.sqnr_db:.1f} dB), got {after.agreement:.3f}, {after.sqnr_db:.1f} dB: use PTQ "
            f"(`optimize run`), or train on more varied clips"
        )
    return ""
