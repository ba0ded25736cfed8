"""Runs the trials of a study and stores their outcomes, so that a resumed study does not repeat them."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_vision.optimize.errors import DISK_FULL, DiskFull
from edge_vision.optimize.trials.executor import (
    FOLDER,
    WORK_FOLDERS,
    Result,
    Trial,
    TrialExecutor,
    TrialOutcome,
    decoded_outcome,
)


class TimeSpent(Exception):
    """The time of the study ended before a trial was done. Nothing is stored, so more time continues it."""


class TrialRunner:
    """Runs trials in the folder of a study unless their outcome is stored there.

    left_s: the time left for all trials, besides timeout_s, the limit of each.
    """

    def __init__(
        self,
        folder: Path,
        executor: TrialExecutor,
        timeout_s: float,
        left_s: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self._folder, self._executor, self._timeout_s = folder, executor, timeout_s
        self._left_s = left_s

    def run(self, trial: Trial[Result], share: float = 1.0) -> TrialOutcome[Result]:
        """The outcome, stored or new. share: of the time left that it may take.

        Raises DiskFull, TimeSpent.
        """
        stored = stored_outcome(trial, self._folder)
        if stored is not None:
            return stored
        self._make_folders()
        limit_s = self.limit_s(share)
        outcome = self._executor.run(trial, self._folder, limit_s)
        self._store(trial, outcome, limit_s)
        if self._is_cut(outcome, limit_s):
            raise TimeSpent
        return outcome

    def limit_s(self, share: float = 1.0) -> float:
        """Time limit of a trial that starts now. Raises TimeSpent if no time is left."""
        limit_s = min(self._timeout_s, share * self._left_s())
        if limit_s <= 0:
            raise TimeSpent
        return limit_s

    @contextlib.contextmanager
    def without_limit(self) -> Iterator[None]:
        """Meanwhile only timeout_s limits a trial."""
        limited, self._left_s = self._left_s, lambda: math.inf
        try:
            yield
        finally:
            self._left_s = limited

    def _is_cut(self, outcome: TrialOutcome[Any], limit_s: float) -> bool:
        """Whether the study's time ended it, not its own time limit."""
        return outcome.status == "timeout" and limit_s < self._timeout_s

    def _store(self, trial: Trial[Any], outcome: TrialOutcome[Any], limit_s: float) -> None:
        if not self._is_cut(outcome, limit_s):
            store_outcome(trial, outcome, self._folder)

    @property
    def parallel(self) -> bool:
        """Whether it pays to `prepare` trials."""
        return self._executor.parallel

    def prepare(self, trials: Sequence[Trial[Any]]) -> None:
        """Store the outcomes of independent trials, so that `run` finds them. Raises DiskFull, TimeSpent."""
        new = {one.name: one for one in trials if stored_outcome(one, self._folder) is None}
        self._make_folders()
        if new:
            limit_s = self.limit_s()
            self._executor.run_all(
                list(new.values()),
                self._folder,
                limit_s,
                lambda trial, outcome: self._store(trial, outcome, limit_s),
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
