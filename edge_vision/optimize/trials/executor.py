"""Trials: independent steps of a study, exchanged as JSON with whatever executes them.

`LocalExecutor` runs a trial in a child process; `cluster` runs it on another machine, in a folder with
copies of its files.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

from edge_vision.core.child_process import child_environment, describe_exit, python_command
from edge_vision.optimize.errors import DISK_FULL, DiskFull
from edge_vision.optimize.records import decoded

EXIT_DISK_FULL = 28
FOLDER = "trials"
WORK_FOLDERS = (FOLDER, "predictions", "variants")
"""In the study's folder; they are there when a trial starts."""
PROGRESS = "progress:"
"""Prefix of the lines in which a trial logs its progress."""
_PROGRESS_PERIOD_S = 0.5
Status = Literal["done", "failed", "timeout", "crashed"]
Result = TypeVar("Result")
Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Trial(Generic[Result]):
    """One step of a study.

    kind: key of `process.KINDS`. name: stem of its files. task: dataclass with the arguments; paths in
    it are relative to the study's folder. result: dataclass that it returns. inputs: hashes of the files that
    it reads and versions of its runtime: an earlier outcome is reused only if they are the same.
    """

    kind: str
    name: str
    task: Any
    result: type[Result]
    inputs: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The same text for the same work."""
        values = {"kind": self.kind, "name": self.name, "task": asdict(self.task), "inputs": self.inputs}
        return json.dumps(values, sort_keys=True, indent=1)


@dataclass(frozen=True, slots=True)
class TrialOutcome(Generic[Result]):
    """result: None unless the status is done. reason: why there is no result.

    status: failed if the trial reported an error, crashed if its process ended without an answer.
    """

    status: Status
    reason: str = ""
    result: Result | None = None
    wall_s: float = 0.0


def decoded_outcome(
    trial: Trial[Result], values: dict[str, Any], strict: bool = False
) -> TrialOutcome[Result]:
    """The outcome of a trial from JSON. strict: see `decoded`. Raises TypeError, KeyError or AttributeError
    for anything else."""
    result = values.pop("result", None)
    found = None if result is None else decoded(trial.result, result, strict)
    outcome: TrialOutcome[Result] = TrialOutcome(**values, result=found)
    if strict and (outcome.status not in get_args(Status) or (found is None) == (outcome.status == "done")):
        raise TypeError(f"expected an outcome, got {outcome.status!r:.60}")
    if strict:
        decoded(str, outcome.reason, strict), decoded(float, outcome.wall_s, strict)
    return outcome


OnDone = Callable[[Trial[Any], TrialOutcome[Any]], None]


class TrialExecutor(ABC):
    """Executes trials, here or elsewhere. parallel: `run_all` runs several at once."""

    parallel = False

    @abstractmethod
    def run(self, trial: Trial[Result], folder: Path, timeout_s: float) -> TrialOutcome[Result]:
        """Run a trial with the study's folder as working directory.

        Errors of the trial are outcomes. Raises DiskFull.
        """

    def run_all(self, trials: Sequence[Trial[Any]], folder: Path, timeout_s: float, on_done: OnDone) -> None:
        """As `run`, for trials that do not need each other's files. on_done: called with each outcome."""
        for trial in trials:
            on_done(trial, self.run(trial, folder, timeout_s))


class LocalExecutor(TrialExecutor):
    """Runs each trial in a child process, which ends together with all processes that it started.

    show_progress: receives the last progress line of a running trial from time to time.
    """

    def __init__(self, show_progress: Log = lambda text: None) -> None:
        self._show_progress = show_progress

    def run(self, trial: Trial[Result], folder: Path, timeout_s: float) -> TrialOutcome[Result]:
        stem = folder / FOLDER / trial.name
        request, answer, log = (stem.with_name(f"{stem.name}{end}") for end in (".trial", ".answer", ".log"))
        answer.unlink(missing_ok=True)
        try:
            request.write_text(trial.to_json(), "utf-8")
            with log.open("wb") as file:
                child = _start(folder, file, request.relative_to(folder), answer.relative_to(folder))
                code = _wait(child, timeout_s, lambda s: self._show_progress(_progress(trial.name, log, s)))
        except subprocess.TimeoutExpired:
            return TrialOutcome("timeout", f"exceeded the time limit of {timeout_s:.0f} s")
        except OSError as error:
            raise (DiskFull(folder) if error.errno in DISK_FULL else error) from None
        if code == EXIT_DISK_FULL:
            raise DiskFull(folder)
        if code == 0 and answer.is_file():
            return decoded_outcome(trial, json.loads(answer.read_text("utf-8")))
        return TrialOutcome("crashed", f"its process {describe_exit(code)}: {_last_line(log)}")


def _start(folder: Path, log: Any, request: Path, answer: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        python_command("edge_vision.optimize.trials.process", str(request), str(answer)),
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=child_environment(),
        start_new_session=True,
    )


def _wait(child: subprocess.Popen[bytes], timeout_s: float, on_period: Callable[[float], None]) -> int:
    """The exit status; the child's process group is killed in any case. on_period: receives the time in
    seconds. Raises TimeoutExpired.

    If this process is killed, the child notices the end of its standard input and exits.
    """
    begun_s = time.monotonic()
    deadline_s = begun_s + timeout_s
    try:
        while True:
            try:
                return child.wait(min(_PROGRESS_PERIOD_S, max(0.01, deadline_s - time.monotonic())))
            except subprocess.TimeoutExpired:
                if time.monotonic() >= deadline_s:
                    raise
                on_period(time.monotonic() - begun_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if child.stdin:
            child.stdin.close()


def _progress(name: str, log: Path, elapsed_s: float) -> str:
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.startswith(PROGRESS)]
    return f"{name}: {lines[-1].removeprefix(PROGRESS).strip()}" if lines else f"{name}: {elapsed_s:.0f} s"


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return re.sub(r"\s+", " ", lines[-1])[:300] if lines else "no output"
