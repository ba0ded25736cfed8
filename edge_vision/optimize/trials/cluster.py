"""Runs trials as jobs of an executor, such as a cluster: each in a folder with copies of its files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_vision.backends.host import usable_cores
from edge_vision.backends.runtimes.engine_cache import write_file
from edge_vision.bundles.store import cache_dir
from edge_vision.offline.executor import Executor, Job, JobContext
from edge_vision.optimize.errors import DISK_FULL, DiskFull
from edge_vision.optimize.trials.executor import (
    WORK_FOLDERS,
    LocalExecutor,
    Log,
    OnDone,
    Result,
    Trial,
    TrialExecutor,
    TrialOutcome,
)
from edge_vision.optimize.trials.files import input_files, made_files, state_of

MEASURED = "measure"
"""The kind of trial that measures times: it has its machine for itself."""


class ClusterTrials(TrialExecutor):
    """show_progress: receives the number of finished trials, and what they report."""

    parallel = True

    def __init__(self, executor: Executor, show_progress: Log = lambda text: None) -> None:
        self._executor, self._show_progress = executor, show_progress

    def run(self, trial: Trial[Result], folder: Path, timeout_s: float) -> TrialOutcome[Result]:
        """See TrialExecutor."""
        outcomes: list[TrialOutcome[Any]] = []
        self.run_all([trial], folder, timeout_s, lambda _, outcome: outcomes.append(outcome))
        return outcomes[0]

    def run_all(self, trials: Sequence[Trial[Any]], folder: Path, timeout_s: float, on_done: OnDone) -> None:
        """See TrialExecutor. Raises KeyboardInterrupt after Ctrl-C, EdgeVisionError."""
        left = {trial.name: trial for trial in trials}

        def on_result(name: str, done: _Done) -> None:
            _write(done.files, folder)
            on_done(left.pop(name), done.outcome)

        def on_progress(reports: Sequence[str]) -> None:
            shown = reports[-1] if reports else "..."
            self._show_progress(f"{len(trials) - len(left)}/{len(trials)} trials; {shown}")

        if not self._executor.run([_job(one, folder, timeout_s) for one in trials], on_result, on_progress):
            raise KeyboardInterrupt


@dataclass(frozen=True, slots=True)
class _Order:
    """files: absolute path -> path in the trial's folder."""

    trial: Trial[Any]
    files: Mapping[str, str]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class _Done:
    """files: contents of what the trial has made, by path in the study's folder."""

    outcome: TrialOutcome[Any]
    files: Mapping[str, bytes]


def _job(trial: Trial[Any], folder: Path, timeout_s: float) -> Job:
    files = {str(folder / file): file for file in input_files(trial, folder)}
    cpus = usable_cores() if trial.kind == MEASURED else 1
    return Job(trial.name, _run, _Order(trial, files, timeout_s), tuple(files), cpus)


def _run(order: _Order, context: JobContext) -> _Done:
    """On the other machine. Raises DiskFull."""
    parent = cache_dir() / "offline"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="trial-", dir=parent) as name:
        folder = Path(name)
        try:
            for file, target in order.files.items():
                (folder / target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(context.path(file), folder / target)
            for made in WORK_FOLDERS:
                (folder / made).mkdir(exist_ok=True)
        except OSError as error:
            raise (DiskFull(folder) if error.errno in DISK_FULL else error) from None
        before = state_of(folder)
        outcome = LocalExecutor(context.report).run(order.trial, folder, order.timeout_s)
        return _Done(outcome, {file: (folder / file).read_bytes() for file in made_files(folder, before)})


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    try:
        for file, content in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            write_file(folder / file, content)
    except OSError as error:
        raise (DiskFull(folder) if error.errno in DISK_FULL else error) from None
