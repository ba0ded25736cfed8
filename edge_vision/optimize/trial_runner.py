"""Runs the trials of a study and stores their outcomes, so that a resumed study does not repeat them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_vision.optimize.errors import DISK_FULL, DiskFull
from edge_vision.optimize.trial_executor import (
    FOLDER,
    WORK_FOLDERS,
    Result,
    Trial,
    TrialExecutor,
    TrialOutcome,
    decoded_outcome,
)


class TrialRunner:
    """Runs trials in the folder of a study unless their outcome is stored there."""

    def __init__(self, folder: Path, executor: TrialExecutor, timeout_s: float) -> None:
        self._folder, self._executor, self._timeout_s = folder, executor, timeout_s

    def run(self, trial: Trial[Result]) -> TrialOutcome[Result]:
        """The outcome, stored or new. Raises DiskFull."""
        stored = stored_outcome(trial, self._folder)
        if stored is not None:
            return stored
        self._make_folders()
        outcome = self._executor.run(trial, self._folder, self._timeout_s)
        store_outcome(trial, outcome, self._folder)
        return outcome

    @property
    def parallel(self) -> bool:
        """Whether it pays to `prepare` trials."""
        return self._executor.parallel

    def prepare(self, trials: Sequence[Trial[Any]]) -> None:
        """Store the outcomes of independent trials, so that `run` finds them. Raises DiskFull."""
        new = {one.name: one for one in trials if stored_outcome(one, self._folder) is None}
        self._make_folders()
        if new:
            self._executor.run_all(
                list(new.values()),
                self._folder,
                self._timeout_s,
                lambda trial, outcome: store_outcome(trial, outcome, self._folder),
            )

    def _make_folders(self) -> None:
        for name in WORK_FOLDERS:
            (self._folder / name).mkdir(exist_ok=True)


def stored_outcome(trial: Trial[Result], folder: Path) -> TrialOutcome[Result] | None:
    """The stored outcome of an identical trial; None if there is none."""
    try:
        stored = json.loads(_file(trial, folder).read_text("utf-8"))
        return decoded_outcome(trial, stored["outcome"]) if stored["trial"] == trial.to_json() else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def store_outcome(trial: Trial[Result], outcome: TrialOutcome[Result], folder: Path) -> None:
    """Store an outcome atomically. Raises DiskFull."""
    file = _file(trial, folder)
    try:
        unfinished = file.with_suffix(".unfinished")
        values = {"trial": trial.to_json(), "outcome": asdict(outcome)}
        unfinished.write_text(json.dumps(values, indent=1), "utf-8")
        os.replace(unfinished, file)
    except OSError as error:
        raise (DiskFull(folder) if error.errno in DISK_FULL else error) from None


def _file(trial: Trial[Result], folder: Path) -> Path:
    return folder / FOLDER / f"{trial.name}.outcome"
