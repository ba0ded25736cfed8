"""Runs conditions in processes of their own, and tells how far they are. What is done with one is a Job."""

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edge_vision.core.child_process import safe_spawn
from edge_vision.core.progress import ProgressLine
from edge_vision.errors import EdgeVisionError
from edge_vision.evaluate.conditions import Condition, by_name
from edge_vision.evaluate.reference.clips import clip_condition
from edge_vision.evaluate.reference.detector import FrameEvent, ReferenceDetector, Stopped

PHASES = {"detect": 0.030, "judge": 0.012, "simulate": 0.12}
"""Seconds of a step before any was measured: a frame for the first two, a method for the last."""
_TOLD_EVERY_S = 0.5


QUICK_FRAMES = 240


class ConditionRun(Protocol):
    """What is done with each condition. It goes to other processes: plain values and no more."""

    @property
    def quick(self) -> bool:
        """Whether only the first QUICK_FRAMES are looked at."""

    def n_simulated(self) -> int:
        """How many steps "simulate" there are for a condition."""

    def evaluate(self, condition: Condition, detector: ReferenceDetector, tick: FrameEvent) -> dict[str, Any]:
        """Its part of the report. tick hears "detect" and "judge" for each frame, "simulate" for each
        simulation; it may raise Stopped. Raises EvaluateError."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is to do; it finds or opens the condition itself."""

    name: str
    video: str | None
    job: ConditionRun


def frames_of(condition: Condition, quick: bool) -> int:
    """How many frames are looked at."""
    return min(condition.n_frames, QUICK_FRAMES) if quick else condition.n_frames


# One worker process's own: how to tell of its steps, and whether to stop.
_told: Any = None
_stop: Any = None


def _begin(told: Any, stop: Any) -> None:
    global _told, _stop
    _told, _stop = told, stop
    import cv2

    cv2.setNumThreads(1)


class _Steps:
    """Counts steps and tells of them now and then."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._counts: dict[str, int] = {}
        self._since_s = time.monotonic()

    def __call__(self, phase: str) -> None:
        if _stop.is_set():
            raise Stopped
        if self._counts and phase not in self._counts:
            self.tell()
        self._counts[phase] = self._counts.get(phase, 0) + 1
        if time.monotonic() - self._since_s > _TOLD_EVERY_S:
            self.tell()

    def tell(self) -> None:
        now_s = time.monotonic()
        for phase, count in self._counts.items():
            _told.put((self._task.name, phase, count, now_s - self._since_s))
        self._counts, self._since_s = {}, now_s


def _work(task: Task) -> dict[str, Any] | None:
    """The figures of one condition; None where it was stopped. Raises EdgeVisionError."""
    condition = by_name(task.name) if task.video is None else clip_condition(Path(task.video))
    steps = _Steps(task)
    try:
        return task.job.evaluate(condition, ReferenceDetector(), steps)
    except Stopped:
        return None
    finally:
        steps.tell()


@dataclass(slots=True)
class _Progress:
    """Which steps are left, and how long one takes."""

    jobs: int
    left: dict[str, dict[str, int]] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    took_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    def add(self, condition: Condition, task: Task) -> None:
        n = frames_of(condition, task.job.quick)
        self.left[condition.name] = {"detect": n, "judge": n, "simulate": task.job.n_simulated()}

    def step(self, name: str, phase: str, count: int, seconds: float) -> None:
        left = self.left[name]
        # A later phase says that the one before is over: the detector's results were on the disk.
        for earlier in PHASES:
            if earlier == phase:
                break
            left[earlier] = 0
        left[phase] = max(0, left[phase] - count)
        self.done[phase] += count
        self.took_s[phase] += seconds

    def end(self, name: str) -> None:
        self.left[name] = dict.fromkeys(PHASES, 0)

    def eta_s(self) -> float:
        each_s = {
            phase: self.took_s[phase] / self.done[phase] if self.done[phase] else guess
            for phase, guess in PHASES.items()
        }
        return sum(left[phase] * each_s[phase] for left in self.left.values() for phase in PHASES) / self.jobs

    def text(self, finished: int) -> str:
        running = [
            f"{name} {next((phase for phase in PHASES if left[phase]), '')}"
            for name, left in self.left.items()
            if any(left.values()) and left != self._whole.get(name)
        ]
        minutes, seconds = divmod(round(self.eta_s()), 60)
        return f"{finished}/{len(self.left)} conditions, {minutes}:{seconds:02d} left; {', '.join(running)}"

    _whole: dict[str, dict[str, int]] = field(default_factory=dict)

    def begin(self) -> None:
        self._whole = {name: dict(left) for name, left in self.left.items()}


def run(
    work: Sequence[tuple[Condition, Task]], jobs: int, on_done: Callable[[str, dict[str, Any]], None]
) -> bool:
    """Evaluate all; on_done hears each as it ends. False where Ctrl-C came first. Raises EdgeVisionError."""
    context = multiprocessing.get_context("spawn")
    with safe_spawn():
        told, stop = context.Queue(), context.Event()
    progress = _Progress(jobs)
    for condition, task in work:
        progress.add(condition, task)
    progress.begin()
    line = ProgressLine(sys.stderr)
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(told, stop))
    try:
        futures = _submitted(pool, work)
        for finished, (name, result) in enumerate(_ended(futures, told, progress, line)):
            progress.end(name)
            if result is not None:
                on_done(name, result)
            line.show(progress.text(finished + 1))
        return True
    except KeyboardInterrupt:
        return False
    except BrokenProcessPool:
        raise EdgeVisionError("a process of the evaluation was killed: was there memory enough?") from None
    finally:
        line.end()
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        told.close()


def _submitted(
    pool: ProcessPoolExecutor, work: Sequence[tuple[Condition, Task]]
) -> dict[Future[dict[str, Any] | None], str]:
    """Start the workers, deaf to Ctrl-C from their first moment on. The longest task comes first."""
    ours = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        longest_first = sorted(work, key=lambda pair: -pair[0].n_frames)
        with safe_spawn():
            return {pool.submit(_work, task): task.name for _, task in longest_first}
    finally:
        signal.signal(signal.SIGINT, ours)


def _ended(
    futures: dict[Future[dict[str, Any] | None], str], told: Any, progress: _Progress, line: ProgressLine
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    waiting = set(futures)
    while waiting:
        ended, waiting = wait(waiting, timeout=0.3, return_when=FIRST_COMPLETED)
        while True:
            try:
                progress.step(*told.get_nowait())
            except queue.Empty:
                break
        line.show(progress.text(len(futures) - len(waiting) - len(ended)))
        for future in ended:
            yield futures[future], future.result()


def default_jobs() -> int:
    """Two, where there are two cores."""
    return min(2, os.cpu_count() or 1)
