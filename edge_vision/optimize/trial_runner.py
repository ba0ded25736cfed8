"""Runs the trials of a study and stores their outcomes, so that a resumed study does not repeat them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from edge_vision.optimize.errors import DISK_FULL, DiskFull
from edge_vision.optimize.trial_executor import (
    FOLDER,
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
        for name in (FOLDER, "predictions", "variants"):
            (self._folder / name).mkdir(exist_ok=True)
        outcome = self._executor.run(trial, self._folder, self._timeout_s)
        store_outcome(trial, outcome, self._folder)
        return outcome


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
