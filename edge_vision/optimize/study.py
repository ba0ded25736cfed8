"""A study: dataset -> baseline -> trials -> Pareto front -> report -> output."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from edge_vision.backends.registry import REFERENCE
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.errors import BundleError
from edge_vision.optimize.agreement import coarse
from edge_vision.optimize.candidate import Candidate
from edge_vision.optimize.candidates import search
from edge_vision.optimize.candidates.pareto import decide
from edge_vision.optimize.candidates.search import search_space
from edge_vision.optimize.candidates.table import CandidateTable
from edge_vision.optimize.data.dataset import CALIBRATION, TUNING, Dataset, prepare_dataset
from edge_vision.optimize.device import OptimizedDevice, load_warning, this_device
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.output import write_output
from edge_vision.optimize.quantization import int8_recipe, sensitivity
from edge_vision.optimize.quantization.sensitivity import Sensitivity, SensitivityTask
from edge_vision.optimize.quantization.variants import Variants
from edge_vision.optimize.report.page import check_installed, write_page
from edge_vision.optimize.report.report_file import (
    ModelInfo,
    StudyReport,
    earlier_wall_s,
    read_report,
    write_report,
)
from edge_vision.optimize.results import CandidateResult, summary_line
from edge_vision.optimize.runtimes import build_only_backends
from edge_vision.optimize.settings import Settings
from edge_vision.optimize.source import SHIPPED, TFLITE
from edge_vision.optimize.trained import seen_clips, trained_bundles
from edge_vision.optimize.trials import build_only
from edge_vision.optimize.trials.executor import Log, Trial, TrialExecutor
from edge_vision.optimize.trials.runner import TimeSpent, TrialRunner

_LAYER_SEARCH_SHARE = 0.5
"""Of the time left, if it is limited: mixed precision must leave some for the other candidates."""


def run_study(
    folder: Path,
    settings: Settings,
    executor: TrialExecutor,
    log: Log,
    device: OptimizedDevice | None = None,
    left_s: Callable[[], float] = lambda: math.inf,
) -> StudyReport:
    """Measure the candidates and choose one. Writes report.json after each measurement; finished trials of an
    earlier run are reused. log: receives lines for the terminal. device: on which the executor measures, by
    default this machine.

    left_s: the time left. Once it is 0, only the baseline, trained bundles and the model's own int8 are still
    measured, and the report is not complete; with more time, another run measures the rest.

    Raises OptimizeError, BundleError if the study cannot start, or if the baseline does not run.
    """
    check_installed()
    dataset = prepare_dataset(folder, settings, log)
    study = _Study(folder, settings, dataset, executor, log, device or this_device(), left_s)
    study.measure_baseline()
    study.run_trials()
    return study.report(complete=not study.left_out())


def check_machine(folder: Path) -> None:
    """Raise OptimizeError if the folder has the finished table of another machine, which would be lost."""
    try:
        measured, here = read_report(folder), this_device()
    except OptimizeError:  # There is none, or a damaged one, which is made again.
        return
    if measured.complete and measured.device.identity != here.identity:
        raise OptimizeError(
            f"{folder}: expected the machine of its results, {measured.device.cpu} with "
            f"{measured.device.cores} cores, got {here.cpu} with {here.cores} cores: `optimize report "
            f"{folder}` prints them, another --out measures here"
        )


def write_results(folder: Path, report: StudyReport) -> list[Path]:
    """Write the page, the chosen bundle, its ladder and the parameter file. Returns what was written.

    Raises DiskFull, BundleError, OptimizeError.
    """
    return [write_page(folder, report), *write_output(folder, report)]


class _Study:
    """The state of a running study."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        dataset: Dataset,
        executor: TrialExecutor,
        log: Log,
        device: OptimizedDevice,
        left_s: Callable[[], float],
    ) -> None:
        self._folder, self._settings, self._dataset, self._log = folder, settings, dataset, log
        self._started_s = time.monotonic() - earlier_wall_s(folder)
        self._bundle = load_bundle(f"{folder / 'source'}{os.sep}")
        tflite = _bundle_beside(folder, TFLITE)
        self._device = device
        self._space = search_space(settings, self._bundle, tflite, dataset, device)
        self._runner = TrialRunner(folder, executor, settings.timeout_s, left_s)
        self._trained = trained_bundles(folder, settings.trained, self._bundle)
        if "int8" in (settings.precisions or ("int8",)):
            with contextlib.suppress(BundleError):  # It is optional; a kill may have left a part of it.
                shipped = _bundle_beside(folder, SHIPPED)
                self._trained |= {SHIPPED: shipped} if shipped else {}
        variants = Variants(self._bundle, tflite, dataset, device, self._runner, self._trained)
        task = self._bundle.manifest.task
        self._table = CandidateTable(
            self._space.baseline, task, settings, dataset, device, variants, self._runner
        )
        warning = load_warning(device.load, device.cores)
        self._notes: list[str] = []
        for note in (warning, *self._seen_notes()):
            self._note(note)
        self._sensitivity: Sensitivity | None = None
        self._left_out: list[str] = []

    def _note(self, text: str) -> None:
        """Say it now and in the report."""
        if text:
            self._notes.append(text)
            self._log(text)

    def _seen_notes(self) -> Iterator[str]:
        for name, bundle in self._trained.items():
            judged = {str(Path(one).absolute()) for one in self._settings.frames}
            clips = {path: one for path, one in self._dataset.clips.items() if path in judged}
            seen = [Path(clip).name for clip in seen_clips(bundle, clips)]
            if seen:
                yield f"{name} was trained on a part of {', '.join(seen)}: its agreement there is too high"

    def measure_baseline(self) -> None:
        """Raises OptimizeError if the unmodified model does not run."""
        baseline = self._space.baseline
        with self._runner.without_limit():
            self._measure([baseline])
        result = self._table.results[baseline.id]
        if result.status == "failed":
            raise OptimizeError(f"the fp32 model does not run on {baseline.backend}: {result.reason}")
        self._note(coarse(result.measured.agreement, self._settings.max_accuracy_loss))

    def run_trials(self) -> None:
        """Measure the candidates of the search, and build engines for devices that this machine lacks."""
        space, results, exhaustive = self._space, self._table.results, self._settings.exhaustive
        self._measure(search.thread_counts(space))
        self._measure(search.precisions(space, results, exhaustive))
        with self._runner.without_limit():
            self._measure(search.trained(space, results, self._trained))
        fp32_nodes: tuple[str, ...] = ()
        if "mixed" in space.allowed:
            fp32_nodes = self._search_layers()
            if fp32_nodes:
                self._measure(search.mixed(space, results, exhaustive), fp32_nodes)
        if not exhaustive:
            self._measure(search.sizes(space, results, self._settings), fp32_nodes)
            self._measure(search.chosen_threads(space, results, self._settings), fp32_nodes)
        self._build_engines(fp32_nodes)

    def _measure(self, candidates: Iterable[Candidate], fp32_nodes: tuple[str, ...] = ()) -> None:
        # Those of one search depend on the results of earlier searches only.
        listed = list(candidates)
        with contextlib.suppress(TimeSpent):
            self._table.prepare(listed, fp32_nodes)
        for candidate in listed:
            if candidate.id not in self._table.results:
                self._add(candidate, lambda one: self._table.measure(one, fp32_nodes))

    def _add(self, candidate: Candidate, measure: Callable[[Candidate], CandidateResult]) -> None:
        """Add a row, unless no time is left for it."""
        try:
            self._log(summary_line(measure(candidate)))
        except TimeSpent:
            self._left_out.append(candidate.id)
        else:
            self.report(complete=False)

    def left_out(self) -> bool:
        """Whether the time did not suffice for everything. Logs what is missing."""
        if self._left_out:
            names = ", ".join(dict.fromkeys(self._left_out))
            self._notes.append(f"not measured, as the time limit of the study was reached: {names}")
            self._log(self._notes[-1])
        return bool(self._left_out)

    def _build_engines(self, fp32_nodes: tuple[str, ...]) -> None:
        for backend in (name for name in build_only_backends() if name in self._settings.backends):
            for precision in self._space.allowed:
                if precision in build_only.PRECISIONS and (precision != "mixed" or fp32_nodes):
                    candidate = Candidate(backend, precision, self._space.native, 1)
                    self._add(candidate, lambda one: self._table.build(one, fp32_nodes))

    def _search_layers(self) -> tuple[str, ...]:
        """The nodes that stay in fp32 in mixed precision; empty if the search fails or none helps."""
        recipe = int8_recipe.int8_recipe(REFERENCE, self._device.flags, self._device.architecture)
        ranges = f"ranges/{self._space.native}.json"
        task = SensitivityTask("source", recipe, CALIBRATION, TUNING, ranges, self._loss_share())
        source = self._bundle.manifest.graphs[0].sha256
        inputs = (source, self._dataset.calibration, self._dataset.tuning)
        trial = Trial("sensitivity", "sensitivity", task, Sensitivity, inputs)
        try:
            outcome = self._runner.run(trial, _LAYER_SEARCH_SHARE)
        except TimeSpent:
            self._left_out.append("mixed precision (its layer search)")
            return ()
        self._sensitivity = outcome.result
        note = f"mixed precision: the layer search {outcome.status}: {outcome.reason}"
        self._notes.append(sensitivity.summary(outcome.result) if outcome.result else note)
        self._log(self._notes[-1])
        return outcome.result.fp32_nodes if outcome.result else ()

    def _loss_share(self) -> float:
        """Share of int8's loss that may remain: half, or less if the bound requires it, with a margin of 20
        %.

        This number is all that the layer search knows about the evaluation clips.
        """
        results = self._table.results.values()
        losses = [1.0 - one.agreement for one in results if one.precision == "int8" and one.measurement]
        allowed = 0.8 * self._settings.max_accuracy_loss
        return round(max(0.05, min([0.5, *(allowed / loss for loss in losses if loss > 0)])), 2)

    def report(self, complete: bool) -> StudyReport:
        """Decide on the results so far and write report.json. Raises DiskFull."""
        results, decision = decide(list(self._table.results.values()), self._settings)
        report = StudyReport(
            complete,
            ModelInfo(
                self._bundle.name,
                self._bundle.manifest.task,
                self._settings.model,
                self._bundle.manifest.graphs[0].sha256,
            ),
            self._device,
            self._settings,
            self._dataset,
            self._space.baseline.id,
            results,
            decision,
            self._sensitivity,
            tuple(self._notes),
            round(time.monotonic() - self._started_s, 1),
        )
        write_report(self._folder, report)
        return report


def _bundle_beside(folder: Path, name: str) -> Bundle | None:
    """A further graph of the model as a bundle, if it has one."""
    path = folder / name
    return load_bundle(f"{path}{os.sep}") if path.is_dir() else None
