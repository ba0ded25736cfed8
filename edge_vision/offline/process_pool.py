"""Runs jobs in processes of this machine, with a clean stop on Ctrl-C."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from edge_vision.core.child_process import child_environment, own_path
from edge_vision.errors import EdgeVisionError
from edge_vision.offline.executor import Executor, Job, JobContext

_PERIOD_S = 0.3


class ProcessPool(Executor):
    """processes: at most."""

    def __init__(self, processes: int) -> None:
        self._processes = processes

    def slots(self, n_jobs: int) -> int:
        """See Executor."""
        return min(self._processes, n_jobs)

    def run(
        self,
        jobs: Sequence[Job],
        on_done: Callable[[str, Any], None],
        on_progress: Callable[[Sequence[Any]], None] = lambda reports: None,
    ) -> bool:
        """See Executor."""
        context = multiprocessing.get_context("spawn")
        with _safe_spawn():
            reports, stop = context.Queue(), context.Event()
        pool = ProcessPoolExecutor(
            self.slots(len(jobs)), mp_context=context, initializer=_init_worker, initargs=(reports, stop)
        )
        try:
            futures = _submit(pool, jobs)
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, timeout=_PERIOD_S, return_when=FIRST_COMPLETED)
                on_progress(list(_drained(reports)))
                for future in done:
                    on_done(futures[future], future.result())
            return True
        except KeyboardInterrupt:
            return False
        except BrokenProcessPool:
            raise EdgeVisionError(
                "a worker process was killed, possibly for lack of memory; try again with --jobs 1"
            ) from None
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            reports.close()


def _submit(pool: ProcessPoolExecutor, jobs: Sequence[Job]) -> dict[Future[Any], str]:
    """Start the workers, which ignore Ctrl-C."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with _safe_spawn():
            return {pool.submit(_run, job): job.name for job in jobs}
    finally:
        signal.signal(signal.SIGINT, handler)


def _drained(reports: Any) -> Iterator[Any]:
    while True:
        try:
            yield reports.get_nowait()
        except queue.Empty:
            return


# Globals of a worker process, set by its initializer.
_reports: Any = None
_stop: Any = None


def _init_worker(reports: Any, stop: Any) -> None:
    global _reports, _stop
    _reports, _stop = reports, stop
    import cv2

    cv2.setNumThreads(1)


def _run(job: Job) -> Any:
    return job.function(job.argument, _LocalContext())


class _LocalContext(JobContext):
    def report(self, progress: Any) -> None:
        _reports.put(progress)

    def stopped(self) -> bool:
        return bool(_stop.is_set())

    def path(self, file: str) -> str:
        return file


@contextlib.contextmanager
def _safe_spawn() -> Iterator[None]:
    """Context in which multiprocessing starts children with `child_environment` and a `sys.path` without the
    working folder."""
    environment, path = dict(os.environ), list(sys.path)
    child = child_environment()
    try:
        os.environ.clear()
        os.environ.update(child)
        sys.path[:] = [*own_path(), *(entry for entry in path if entry and not _is_working_folder(entry))]
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:] = path


def _is_working_folder(entry: str) -> bool:
    return os.path.realpath(entry) == os.path.realpath(os.getcwd())
