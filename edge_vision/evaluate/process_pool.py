"""Evaluates conditions in worker processes, with a progress line and a clean stop on Ctrl-C."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_vision.core.child_process import safe_spawn
from edge_vision.errors import EdgeVisionError
from edge_vision.evaluate.condition_run import ConditionRun
from edge_vision.evaluate.conditions import Condition, frames_of
from edge_vision.evaluate.constructed import condition_by_name
from edge_vision.evaluate.progress_estimate import ProgressEstimate, StepReport
from edge_vision.evaluate.reference.clips import clip_condition
from edge_vision.evaluate.reference.detector import ReferenceDetector, Stopped
from edge_vision.evaluate.reference.noise_ceiling import SAMPLE_EVERY, SHIFTS_PX
from edge_vision.offline.progress import ProgressLine

_REPORT_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Task:
    """A condition for a worker process, which opens it itself. video: path of a clip, None if constructed."""

    name: str
    video: str | None
    run: ConditionRun


def default_jobs() -> int:
    """Number of worker processes: two if there are two cores."""
    return min(2, os.cpu_count() or 1)


def evaluate_all(
    work: Sequence[tuple[Condition, Task]], jobs: int, on_done: Callable[[str, dict[str, Any]], None]
) -> bool:
    """Evaluate all conditions; False if stopped by Ctrl-C.

    on_done: called with name and result of each finished condition. Raises EdgeVisionError.
    """
    context = multiprocessing.get_context("spawn")
    with safe_spawn():
        reports, stop = context.Queue(), context.Event()
    progress = ProgressEstimate(jobs, {condition.name: _steps(condition, task) for condition, task in work})
    line = ProgressLine(sys.stderr)
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_init_worker, initargs=(reports, stop))
    try:
        futures = _submit(pool, work)
        for name, result in _finished(futures, reports, progress, line):
            progress.finish(name)
            if result is not None:
                on_done(name, result)
            line.show(progress.text())
        return True
    except KeyboardInterrupt:
        return False
    except BrokenProcessPool:
        raise EdgeVisionError(
            "a worker process was killed, possibly for lack of memory; try again with --jobs 1"
        ) from None
    finally:
        line.end()
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        reports.close()


def _steps(condition: Condition, task: Task) -> dict[str, int]:
    n = frames_of(condition, task.run.quick)
    # The reference, and the noise ceiling.
    n_inferences = n + len(SHIFTS_PX) * -(-n // SAMPLE_EVERY)
    return {"detect": n_inferences, "analyse": n, "simulate": task.run.n_simulated()}


def _submit(
    pool: ProcessPoolExecutor, work: Sequence[tuple[Condition, Task]]
) -> dict[Future[dict[str, Any] | None], str]:
    """Start the workers, which ignore Ctrl-C, clips first, the longest ones before."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ordered = sorted(work, key=lambda pair: (pair[0].constructed, -pair[0].n_frames))
        with safe_spawn():
            return {pool.submit(_evaluate, task): task.name for _, task in ordered}
    finally:
        signal.signal(signal.SIGINT, handler)


def _finished(
    futures: dict[Future[dict[str, Any] | None], str],
    reports: Any,
    progress: ProgressEstimate,
    line: ProgressLine,
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, timeout=0.3, return_when=FIRST_COMPLETED)
        progress.add(_drained(reports))
        line.show(progress.text())
        for future in done:
            yield futures[future], future.result()


def _drained(reports: Any) -> Iterator[StepReport]:
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


def _evaluate(task: Task) -> dict[str, Any] | None:
    """The result of one condition; None if stopped. Raises EdgeVisionError."""
    video = task.video
    condition = condition_by_name(task.name) if video is None else clip_condition(Path(video))
    reporter = _StepReporter(task.name)
    try:
        return task.run.evaluate(condition, ReferenceDetector(), reporter)
    except Stopped:
        return None
    finally:
        reporter.flush()


class _StepReporter:
    """Counts the steps of a worker and reports them at intervals."""

    def __init__(self, condition: str) -> None:
        self._condition = condition
        self._phase, self._count = "", 0
        self._since_s = time.monotonic()

    def __call__(self, phase: str) -> None:
        if _stop.is_set():
            raise Stopped
        if phase != self._phase or time.monotonic() - self._since_s > _REPORT_EVERY_S:
            self.flush()
        self._phase = phase
        self._count += 1

    def flush(self) -> None:
        now_s = time.monotonic()
        if self._count:
            _reports.put(StepReport(self._condition, self._phase, self._count, now_s - self._since_s))
        self._count, self._since_s = 0, now_s
