"""Post-training quantization, then training steps, each only where it may pay and the time allows.

The clips are split by time once: the optimizer calibrates on the first part and measures on the last one,
which no step trains on. After each step its bundle is a row of the one table. A repeated run continues.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_vision.backends.runtimes.engine_cache import write_file
from edge_vision.bundles.store import load_bundle
from edge_vision.core.missing_package import install_command
from edge_vision.errors import EdgeVisionError
from edge_vision.offline.output_folder import check_subfolders, claim_folder, remove_path
from edge_vision.optimize.command import COMMAND as STUDY_COMMAND
from edge_vision.optimize.command import STUDY
from edge_vision.optimize.data.dataset import prepare_dataset
from edge_vision.optimize.report.report_file import StudyReport
from edge_vision.optimize.settings import Settings
from edge_vision.optimize.study import check_machine, run_study, write_results
from edge_vision.optimize.trials.executor import LocalExecutor
from edge_vision.train.auto_state import (
    JUDGE_IMAGES,
    STATE,
    STEPS,
    TRAIN_IMAGES,
    AutoRequest,
    AutoState,
    Step,
    StepOutcome,
    remove_results,
    restored,
)
from edge_vision.train.bounds import MemoryBoundExceeded, TimeBoundExceeded, bounds
from edge_vision.train.cpu_clock import stored_cpu_s
from edge_vision.train.data.time_split import split
from edge_vision.train.networks.cutting import class_columns, wanted_ids
from edge_vision.train.networks.timing import RUNTIMES
from edge_vision.train.recipes.run_folder import CPU_TIME
from edge_vision.train.run import run_recipe

Log = Callable[[str], None]
_PASSES_PER_SAMPLE = 10.0
"""Time of a training step for one sample, in inferences of the fp32 graph: measured 7 to 12."""
_TIME_SHARE = 0.8
"""Of the time left that a training may take; the rest is for data, verdict and measurement."""
_STUDY_SHARE = 0.5
"""Of the time left that a study may take while trainings wait."""
_PRUNABLE_SHARE = 0.35
"""Of the time: where more is to be saved, pruning alone loses too much, and a student is tried first."""
_STORE_PERIOD_S = 10.0
_LEAST_STUDY_S = 10.0
"""Of the time left at the end, to measure what was left out before."""
_ENDED = "the time of --hours has ended; it continues with more"


def run_auto(
    folder: Path, request: AutoRequest, log: Log, show: Callable[[str], None]
) -> tuple[StudyReport, AutoState]:
    """Run the steps and write study/, one folder for each step, and auto.json. log, show: as TrainingRun.

    On KeyboardInterrupt and errors, all finished work is kept; before the first table there is none. Raises
    OptimizeError, also if the folder has results of another request, BundleError, SourceError.
    """
    run, is_new = _Auto(folder, request, log, show), not (folder / STATE).exists()
    try:
        return run.run(), run.state
    except Exception:
        if is_new and not run.has_table:
            remove_results(folder)
        raise
    finally:
        if (folder / STATE).exists():
            run.store()


class _Auto:
    def __init__(self, folder: Path, request: AutoRequest, log: Log, show: Callable[[str], None]) -> None:
        self._folder, self._request, self._log, self._show = folder, request, log, show
        self.state = restored(folder, request)
        self._started_s = time.monotonic() - self.state.spent_s
        self.has_table = False
        self._stored_s = self._started_s

    def run(self) -> StudyReport:
        check_machine(self._folder / STUDY)
        self._log_earlier()
        self._write_images()
        self.store()
        self._check_classes()
        report = self._measured()
        self.has_table = True
        report = self._steps(report)
        while self._is_missing(report) and self._left_s() > _LEAST_STUDY_S:
            report = self._measured(share=1.0)
        self._log_left(report)
        return report

    def _steps(self, report: StudyReport) -> StudyReport:
        waiting = [step for step in STEPS if self._open(step.name)]
        while waiting:
            step = next_step(waiting, report, self._request)
            waiting.remove(step)
            reason = needless(step, report, self._request)
            outcome = StepOutcome("skipped", reason) if reason else self._planned(step, report)
            # At the end: the study numbers its copies of the bundles in this order.
            self.state.outcomes.pop(step.name, None)
            self.state.outcomes[step.name] = outcome
            if outcome.state == "running":
                self._train(step, outcome)
            self.store()
            self._log(f"{step.name}: {outcome_text(outcome)}")
            if outcome.state == "done":
                report = self._measured()
        return report

    def store(self) -> None:
        """Write auto.json, atomically."""
        self._stored_s = time.monotonic()
        self.state.spent_s = self._stored_s - self._started_s
        for name, outcome in self.state.outcomes.items():
            if outcome.state in ("running", "failed"):
                outcome.cpu_s = stored_cpu_s(self._folder / name / CPU_TIME)
        write_file(self._folder / STATE, (json.dumps(asdict(self.state), indent=1) + "\n").encode())

    def _shown(self, text: str) -> None:
        """Show the progress. The time is stored now and then, as it counts after a kill, too."""
        self._show(text)
        if time.monotonic() - self._stored_s > _STORE_PERIOD_S:
            self.store()

    def _open(self, name: str) -> bool:
        """Whether a step is to be decided: not before, or under way. A lack of time may have passed, as may
        what made it fail."""
        outcome = self.state.outcomes.get(name)
        return outcome is None or outcome.state in ("running", "skipped", "failed")

    def _left_s(self) -> float:
        return self._request.hours * 3600 - (time.monotonic() - self._started_s)

    def _log_earlier(self) -> None:
        """Say how much of the time earlier runs took."""
        spent_s, hours = self.state.spent_s, self._request.hours
        if spent_s:
            spent = f"earlier runs took {minutes(spent_s)} of --hours {hours:g}"
            rest = f"{minutes(self._left_s())} are left"
            self._log(f"{spent}: {rest if self._left_s() > 0 else 'nothing new is started, pass more'}")

    def _is_missing(self, report: StudyReport) -> bool:
        """Whether a candidate that was not measured may be better."""
        return not report.complete and not within_budget(report, self._request)

    def _log_left(self, report: StudyReport) -> None:
        """Say what the time did not suffice for."""
        unfinished = [name for name, one in self.state.outcomes.items() if one.state == "running"]
        missing = ["all measurements"] * self._is_missing(report) + unfinished
        if missing:
            self._log(
                f"--hours {self._request.hours:g} did not suffice for {', '.join(missing)}: the same command "
                f"with more --hours continues"
            )

    def _write_images(self) -> None:
        request = self._request
        if all((self._folder / name).is_dir() for name in (TRAIN_IMAGES, JUDGE_IMAGES)):
            return
        self._log("reading the clips")
        found = split(request.videos, request.judge, request.images, request.images)
        for name, images in ((TRAIN_IMAGES, found.train), (JUDGE_IMAGES, found.judge)):
            _write_folder(self._folder / name, images)

    def _check_classes(self) -> None:
        """Raise OptimizeError, before anything is measured, if no student can have the classes."""
        if self._request.classes:
            self._claimed(settings := self._settings())
            prepare_dataset(self._folder / STUDY, settings, self._log)
            bundle = load_bundle(f"{self._folder / STUDY / 'source'}{os.sep}")
            class_columns(bundle)
            wanted_ids(bundle.labels, self._request.classes)

    def _measured(self, share: float = _STUDY_SHARE) -> StudyReport:
        """The table with the bundles so far; what was measured before is not measured again. share: of the
        time left that it may take."""
        settings, folder = self._settings(), self._folder / STUDY
        self._claimed(settings)
        end_s = time.monotonic() + share * self._left_s()
        if self._left_s() > 0:
            self._log(f"measuring, for at most {minutes(share * self._left_s())} of --hours")
        executor = LocalExecutor(self._shown)
        report = run_study(folder, settings, executor, self._log, left_s=lambda: end_s - time.monotonic())
        write_results(folder, report)
        return report

    def _claimed(self, settings: Settings) -> None:
        """Make the study's folder."""
        claim_folder(self._folder / STUDY, STUDY_COMMAND)
        settings.write(self._folder / STUDY)

    def _settings(self) -> Settings:
        request = self._request
        return Settings(
            model=request.model,
            frames=(str(self._folder / JUDGE_IMAGES),),
            calibration=str(self._folder / TRAIN_IMAGES),
            budget_ms=request.budget_ms,
            max_rss_mb=request.max_rss_mb,
            max_accuracy_loss=request.max_accuracy_loss,
            backends=request.backends,
            images=request.images,
            measure_s=request.measure_s,
            trained=tuple(self._trained()),
        )

    def _trained(self) -> Iterator[str]:
        """Folders with bundles."""
        for name, outcome in self.state.outcomes.items():
            folder = self._folder / name
            if outcome.state == "done":
                yield from map(str, sorted(folder.glob("budget_*")) or [folder])

    def _planned(self, step: Step, report: StudyReport) -> StepOutcome:
        """The step with as many training steps as the time allows; those of an interrupted one stay."""
        before = self.state.outcomes.get(step.name)
        if before and before.steps:
            if self._left_s() > 0:
                self._log(f"{step.name}: continues, {minutes(self._left_s())} of --hours are left")
            before.state = "running"
            return before
        step_s = report.result(report.baseline).measured.timing.p50_ms / 1e3
        step_s *= _PASSES_PER_SAMPLE * self._request.batch * step.trainings
        steps = min(step.steps, int(_TIME_SHARE * self._left_s() / step_s))
        if steps < step.least:
            return StepOutcome(
                "skipped",
                f"{step.least} training steps need about {minutes(step.least * step_s)}, "
                f"{minutes(self._left_s())} of --hours are left: pass a higher --hours",
            )
        self._log(
            f"{step.name}: {steps} training steps, about {minutes(steps * step_s)} and its preparation; "
            f"{minutes(self._left_s())} of --hours are left"
        )
        options = step_options(step, report, self._request)
        return StepOutcome("running", "", steps, self._request.batch, options)

    def _train(self, step: Step, outcome: StepOutcome) -> None:
        """Train; with half the batch if the memory does not suffice. If the time ends, it stays as it is."""
        import torch  # noqa: F401  An import that a bound interrupts cannot be repeated.

        while True:
            self.store()
            outcome.reason = "" if self._left_s() > 0 else _ENDED
            if outcome.reason:
                return
            try:
                with bounds(self._request.memory_gb, self._left_s()):
                    done = self._run_step(step, outcome)
            except TimeBoundExceeded:
                continue
            except MemoryBoundExceeded as error:
                if outcome.batch > 1:
                    outcome.batch //= 2
                    remove_path(self._folder / step.name)
                    self._log(f"{step.name}: {error}: again with a batch of {outcome.batch}")
                    continue
                outcome.state, outcome.reason = "failed", str(error)
            except EdgeVisionError as error:  # Of this step only, such as an unreadable clip.
                outcome.state, outcome.reason = "failed", str(error)
            else:
                outcome.state, outcome.reason = ("refused", done.refused) if done.refused else ("done", "")
                outcome.cpu_s = done.cpu_s
            return

    def _run_step(self, step: Step, outcome: StepOutcome) -> Any:
        from edge_vision.train.recipes.training_request import TrainingRequest

        request, folder = self._request, self._folder / step.name
        check_subfolders(self._folder, (step.name,))
        folder.mkdir(exist_ok=True)
        options: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in outcome.options.items()
        }
        training = TrainingRequest(
            step.name,
            request.model,
            request.videos,
            request.judge,
            outcome.steps,
            outcome.batch,
            request.samples,
            seed=request.seed,
            **options,
        )
        return run_recipe(folder, training, self._log, self._shown)


def next_step(waiting: Sequence[Step], report: StudyReport, request: AutoRequest) -> Step:
    """The step that pays first: one that saves time if the budget is missed, else one for accuracy."""
    late = excess(report, request) > 1.0
    first = [step for step in waiting if step.faster == late] or waiting
    if late and request.other and share_to_remove(report, request) > _PRUNABLE_SHARE:
        first = [step for step in first if step.name == "student"] or first
    return first[0]


def excess(report: StudyReport, request: AutoRequest) -> float:
    """The p95 of the best candidate, over the budget; 0 without a budget."""
    best = report.decision.chosen or report.decision.nearest
    if request.budget_ms is None or best is None:
        return 0.0
    return report.result(best).p95_ms / request.budget_ms


def step_options(step: Step, report: StudyReport, request: AutoRequest) -> dict[str, Any]:
    """Options of TrainingRequest, as JSON has them: what the budget requires."""
    best = report.decision.chosen or report.decision.nearest
    backend = report.result(best).backend if best else ""
    runtime = {"runtime": backend if backend in RUNTIMES else RUNTIMES[0]}
    if not step.faster:
        return runtime
    share = share_to_remove(report, request)
    if step.name == "search":
        budgets = [0.8, 0.6] if request.budget_ms is None else [round(1 - share, 2)]
        return {"budgets": budgets, **runtime}
    students = {"classes": [*request.classes], "other": [*request.other]}
    return {"share": share, **(students if step.name == "student" else {}), **runtime}


def share_to_remove(report: StudyReport, request: AutoRequest) -> float:
    """Of the time: what the budget requires, from 0.2 to 0.5; 0.3 without a budget."""
    over = excess(report, request)
    return 0.3 if over <= 1.0 else round(min(0.5, max(0.2, 1 - 1 / over)), 2)


def within_budget(report: StudyReport, request: AutoRequest) -> bool:
    """Whether a candidate is within all bounds, so that no further one is needed."""
    return request.budget_ms is not None and report.decision.chosen is not None


def minutes(time_s: float) -> str:
    """A time as text; below 0 as 0."""
    time_s = max(0.0, time_s)
    if time_s < 120:
        return f"{time_s:.0f} s"
    return f"{time_s / 60:.1f} min" if time_s < 600 else f"{time_s / 60:.0f} min"


def outcome_text(outcome: StepOutcome) -> str:
    """State and reason in one line."""
    state = "unfinished" if outcome.state == "running" else outcome.state
    return f"{state}{': ' * bool(outcome.reason)}{outcome.reason}"


def needless(step: Step, report: StudyReport, request: AutoRequest) -> str:
    """Why a step cannot pay; "" if it may."""
    if importlib.util.find_spec("torch") is None:
        return f"package torch is not installed: {install_command('torch')}"
    if within_budget(report, request):
        return f"{report.decision.chosen} is within all bounds"
    losses = [1 - one.agreement for one in report.results if one.precision == "int8" and one.measurement]
    if not step.faster and losses and min(losses) <= 0:
        return f"int8 already agrees with fp32 on all images (at most {request.images}, see --images)"
    if step.name == "student" and not (request.classes and request.other):
        return "pass --classes and --other, another scene, for a student"
    return ""


def _write_folder(folder: Path, images: Sequence[np.ndarray]) -> None:
    """The images as PNG; the folder appears when it is complete."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    remove_path(unfinished)
    remove_path(folder)
    unfinished.mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(unfinished / f"{number:04d}.png"), image)
    unfinished.rename(folder)
