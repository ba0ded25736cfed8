"""The pipeline as a child process that ends with its parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from edge_vision.core.child_process import child_environment, python_command
from edge_vision.diagnostics.process_usage import ProcessMeter, ProcessUsage

STOP_S = 4.0
_PR_SET_PDEATHSIG = 1


PIPELINE = ("edge_vision.nodes.cli", "pipeline")


def isolate_domain() -> None:
    """Keep pipelines that run side by side, and robots on the same network, apart."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


class PipelineProcess:
    """The executable `pipeline` with these arguments. log: the file for its output.

    program: a module with its first arguments, for another composition of nodes.
    """

    def __init__(self, arguments: Sequence[str], log: Path, program: Sequence[str] = PIPELINE) -> None:
        self.command = python_command(*program, *arguments)
        self._log = log
        self.started_s = time.monotonic()
        with log.open("wb") as file:
            # A session of its own: Ctrl-C reaches only the parent, which then stops the pipeline.
            self._child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**child_environment(), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
                preexec_fn=_end_with_parent(),
            )
        self._meter = ProcessMeter(self._child.pid)
        self._peak_mb: float | None = None
        self._steady_mb: list[float] = []
        self._last = ProcessUsage(None, None, None, None)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, None while the process runs."""
        return self._child.poll()

    def measure(self) -> ProcessUsage:
        """The present usage; the last reading if the process has ended."""
        usage = self._meter.read()
        if usage.rss_mb is None:
            return self._last
        self._last = usage
        self._steady_mb.append(usage.rss_mb)
        self._peak_mb = max(self._peak_mb or 0.0, usage.rss_mb, _high_water_mb(self.pid) or 0.0)
        return usage

    @property
    def usage(self) -> ProcessUsage:
        """The last reading."""
        return self._last

    @property
    def peak_mb(self) -> float | None:
        """The peak of its resident memory in MB."""
        return self._peak_mb

    @property
    def steady_mb(self) -> float | None:
        """The median resident memory of the second half of the readings, in MB."""
        half = sorted(self._steady_mb[len(self._steady_mb) // 2 :])
        return half[len(half) // 2] if half else None

    def stop(self, meanwhile: Callable[[float], None] = time.sleep) -> None:
        """Send SIGINT, and SIGKILL if the process does not end. meanwhile(s) is called while waiting."""
        for number in (signal.SIGINT, signal.SIGKILL):
            if self.returncode is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(number)
            end_s = time.monotonic() + STOP_S
            while self.returncode is None and time.monotonic() < end_s:
                meanwhile(0.05)

    def last_lines(self, count: int = 15) -> list[str]:
        """The last lines of its log."""
        try:
            return self._log.read_text(errors="replace").splitlines()[-count:]
        except OSError:
            return []


def _end_with_parent() -> Callable[[], None] | None:
    """For preexec_fn: the kernel ends the child when the parent is killed. Linux only."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def set_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))

    return set_signal


def _high_water_mb(pid: int) -> float | None:
    """The peak of a process's resident memory in MB, None if it cannot be read."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except (OSError, ValueError, psutil.Error):
        pass
    return None
