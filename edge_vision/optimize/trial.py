"""The seam for trials: a job is told in JSON, is independent of all others, and is answered in JSON.

`LocalExecutor` runs a trial in a process of this machine. An executor for a cluster has to copy the study's
folder there, run `python -m edge_vision.optimize.trial_process TRIAL.json ANSWER.json` in it, and copy back
what the trial wrote.
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
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from edge_vision.core.child_process import child_environment, describe_exit, python_command
from edge_vision.optimize.errors import DISK_FULL, DiskFull

EXIT_DISK_FULL = 28
PROGRESS = "progress:"
"""What a job writes before a line about how far it is."""
_TELL_S = 0.5
Status = Literal["done", "failed", "timeout", "crashed"]


@dataclass(frozen=True, slots=True)
class Trial:
    """kind: a word of `job.KINDS`. name: of its files. args: for the kind; JSON, paths within the study's
    folder, and the hashes of what they hold, so that the same job is known again."""

    kind: str
    name: str
    args: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The job as JSON; the same job has the same text."""
        return json.dumps({"kind": self.kind, "name": self.name, "args": self.args}, sort_keys=True, indent=1)


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """status: done, else why there is no result: failed (it said so), timeout, crashed."""

    status: Status
    reason: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    wall_s: float = 0.0


class TrialExecutor(ABC):
    """Where jobs run."""

    @abstractmethod
    def run(self, job: Trial, folder: Path, timeout_s: float) -> TrialOutcome:
        """Run a job with the study's folder as working folder. Never raises for what the job does, but for
        a full disk: DiskFull."""


class LocalExecutor(TrialExecutor):
    """A process of its own for each job. Ends with everything that it started, in any case.

    show: takes now and then what a long job says of its progress.
    """

    def __init__(self, show: Callable[[str], None] = lambda text: None) -> None:
        self._show = show

    def run(self, job: Trial, folder: Path, timeout_s: float) -> TrialOutcome:
        """See the contract."""
        stem = folder / "jobs" / job.name
        asked, answer, log = (stem.with_name(f"{stem.name}{end}") for end in (".job", ".answer", ".log"))
        answer.unlink(missing_ok=True)
        try:
            asked.write_text(job.text, "utf-8")
            with log.open("wb") as file:
                paths = asked.relative_to(folder), answer.relative_to(folder)
                code = _run(paths, folder, file, timeout_s, lambda: self._show(_progress(job.name, log)))
        except subprocess.TimeoutExpired:
            return TrialOutcome("timeout", f"took longer than {timeout_s:.0f} s and was ended")
        except OSError as error:
            raise (DiskFull(folder) if error.errno in DISK_FULL else error) from None
        if code == EXIT_DISK_FULL:
            raise DiskFull(folder)
        if code == 0 and answer.is_file():
            return TrialOutcome(**json.loads(answer.read_text("utf-8")))
        return TrialOutcome("crashed", f"its process {describe_exit(code)}: {_last_line(log)}")


def _run(paths: tuple[Path, Path], folder: Path, log: Any, timeout_s: float, tell: Callable[[], None]) -> int:
    """The exit code. The job's group of processes is gone afterwards; so it is where we are killed, as the
    job ends when its standard input does. Raises TimeoutExpired."""
    command = python_command("edge_vision.optimize.trial_process", *map(str, paths))
    child = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=child_environment(),
        start_new_session=True,
    )
    until_s = time.monotonic() + timeout_s
    try:
        while True:
            try:
                return child.wait(min(_TELL_S, max(0.01, until_s - time.monotonic())))
            except subprocess.TimeoutExpired:
                if time.monotonic() >= until_s:
                    raise
                tell()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if child.stdin:
            child.stdin.close()


def _progress(name: str, log: Path) -> str:
    """What the job said last of its progress."""
    told = [line for line in log.read_text("utf-8", "replace").splitlines() if line.startswith(PROGRESS)]
    return f"{name}: {told[-1].removeprefix(PROGRESS).strip()}" if told else f"{name} ..."


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return re.sub(r"\s+", " ", lines[-1])[:300] if lines else "no output"


def kept_outcome(job: Trial, folder: Path) -> TrialOutcome | None:
    """What the very same job came to before; None where it did not run, or not to its end."""
    try:
        kept = json.loads((folder / "jobs" / f"{job.name}.outcome").read_text("utf-8"))
        return TrialOutcome(**kept["outcome"]) if kept["job"] == job.text else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def keep(job: Trial, outcome: TrialOutcome, folder: Path) -> None:
    """Keep it for a later run, whole or not at all. Raises DiskFull."""
    place = folder / "jobs" / f"{job.name}.outcome"
    try:
        unfinished = place.with_suffix(".unfinished")
        unfinished.write_text(json.dumps({"job": job.text, "outcome": asdict(outcome)}, indent=1), "utf-8")
        os.replace(unfinished, place)
    except OSError as error:
        raise (DiskFull(folder) if error.errno in DISK_FULL else error) from None
