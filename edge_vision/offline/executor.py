"""Executors: they run independent jobs, in processes of this machine or on a cluster.

`process_pool` is the one of this machine, `ray_cluster` that of many. The results are the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


class JobContext(ABC):
    """What a running job gets from its executor."""

    @abstractmethod
    def report(self, progress: Any) -> None:
        """Send a picklable value to `on_progress` of the run. It may get lost with its machine."""

    @abstractmethod
    def stopped(self) -> bool:
        """Whether the user pressed Ctrl-C: the result will not be used."""

    @abstractmethod
    def path(self, file: str) -> str:
        """Where one of the job's files is on this machine."""


@dataclass(frozen=True, slots=True)
class Job:
    """One independent piece of work: the same arguments give the same result on any machine.

    name: unique within a run. function: of a module, called with argument and context in another process; its
    argument and result are picklable, and it raises EdgeVisionError. files: absolute paths of files that it
    reads, by `JobContext.path`. cpus: cores that it keeps busy; all of a machine to measure times there.
    """

    name: str
    function: Callable[[Any, JobContext], Any]
    argument: Any
    files: tuple[str, ...] = ()
    cpus: int = 1


class Executor(ABC):
    """Runs jobs. Jobs whose machine is lost run again on another one."""

    @abstractmethod
    def slots(self, n_jobs: int) -> int:
        """How many of n jobs run at once."""

    @abstractmethod
    def run(
        self,
        jobs: Sequence[Job],
        on_done: Callable[[str, Any], None],
        on_progress: Callable[[Sequence[Any]], None] = lambda reports: None,
    ) -> bool:
        """Run all jobs, the first ones first; False if stopped by Ctrl-C.

        on_done: called with name and result of each job. on_progress: called at least once per second, with
        what the jobs reported since. Both are called in this thread. Raises the EdgeVisionError of a job, or
        one that names what is missing to run it.
        """
