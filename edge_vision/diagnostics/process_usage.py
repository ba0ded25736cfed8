"""CPU, memory and open files of a process, through psutil."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """cpu_percent: of one core, since the last reading. None for what cannot be read."""

    cpu_percent: float | None
    cpu_s: float | None
    rss_mb: float | None
    threads: int | None
    fds: int | None = None


def process_state(pid: int) -> str:
    """ "ended", "stopped" (by a signal or a debugger), "running", or "" if it cannot be read."""
    try:
        status = psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return "ended"
    except psutil.Error:
        return ""
    stopped = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    return "stopped" if status in stopped else "ended" if status in _DEAD else "running"


_DEAD = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


class ProcessMeter:
    """Reads one process of this machine, by its id."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._process: psutil.Process | None = None

    def read(self) -> ProcessUsage:
        """The present usage, all None without such a process."""
        try:
            if self._process is None:
                self._process = psutil.Process(self.pid)
            with self._process.oneshot():
                times = self._process.cpu_times()
                return ProcessUsage(
                    self._process.cpu_percent(),
                    times.user + times.system,
                    self._process.memory_info().rss / 1e6,
                    self._process.num_threads(),
                    self._fds(self._process),
                )
        except psutil.Error:
            return ProcessUsage(None, None, None, None)

    @staticmethod
    def _fds(process: psutil.Process) -> int | None:
        """Open file descriptors, None for another user's process."""
        try:
            # psutil opens a folder to list the files, and counts that too in its own process.
            return int(process.num_fds()) - (process.pid == os.getpid())
        except psutil.AccessDenied:
            return None
