"""Evaluates conditions as jobs of an executor, with a progress line."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_vision.bundles.store import load_bundle
from edge_vision.evaluate.condition_run import ConditionRun
from edge_vision.evaluate.conditions import Condition, frames_of
from edge_vision.evaluate.constructed import condition_by_name
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.progress_estimate import ProgressEstimate, StepReport
from edge_vision.evaluate.reference.clips import clip_condition
from edge_vision.evaluate.reference.detector import ReferenceDetector, Stopped
from edge_vision.evaluate.reference.noise_ceiling import SAMPLE_EVERY, SHIFTS_PX
from edge_vision.offline.executor import Executor, Job, JobContext
from edge_vision.offline.progress import ProgressLine

_REPORT_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Task:
    """A condition for a worker process, which opens it itself. video: path of a clip, None if constructed.

    bundles: name -> sha256 of the bundles that the worker must have.
    """

    name: str
    video: str | None
    run: ConditionRun
    bundles: Mapping[str, str]


def default_jobs() -> int:
    """Number of worker processes: two if there are two cores."""
    return min(2, os.cpu_count() or 1)


def evaluate_all(
    work: Sequence[tuple[Condition, Task]], executor: Executor, on_done: Callable[[str, dict[str, Any]], None]
) -> bool:
    """Evaluate all conditions, clips first, the longest ones before; False if stopped by Ctrl-C.

    on_done: called with name and result of each finished condition. Raises EdgeVisionError.
    """
    steps = {condition.name: _steps(condition, task) for condition, task in work}
    progress = ProgressEstimate(executor.slots(len(work)), steps)
    line = ProgressLine(sys.stderr)

    def on_result(name: str, result: dict[str, Any]) -> None:
        progress.finish(name)
        on_done(name, result)
        line.show(progress.text())

    def on_progress(reports: Sequence[StepReport]) -> None:
        progress.add(reports)
        line.show(progress.text())

    ordered = sorted(work, key=lambda pair: (pair[0].constructed, -pair[0].n_frames))
    jobs = [
        Job(task.name, _evaluate, task, (task.video,) if task.video is not None else ())
        for _, task in ordered
    ]
    try:
        return executor.run(jobs, on_result, on_progress)
    finally:
        line.end()


def _steps(condition: Condition, task: Task) -> dict[str, int]:
    n = frames_of(condition, task.run.quick)
    # The reference, and the noise ceiling.
    n_inferences = n + len(SHIFTS_PX) * -(-n // SAMPLE_EVERY)
    return {"detect": n_inferences, "analyse": n, "simulate": task.run.n_simulated()}


def _evaluate(task: Task, context: JobContext) -> dict[str, Any] | None:
    """The result of one condition; None if stopped. Raises EdgeVisionError."""
    for name, sha256 in task.bundles.items():
        if (found := load_bundle(name).sha256) != sha256:
            raise EvaluateError(
                f"{name} on {platform.node()}: expected the bundle {sha256:.12} of the machine that started "
                f"the evaluation, got {found:.12}; copy the bundle to this machine"
            )
    condition = (
        condition_by_name(task.name) if task.video is None else clip_condition(Path(context.path(task.video)))
    )
    reporter = _StepReporter(task.name, context)
    try:
        return task.run.evaluate(condition, ReferenceDetector(), reporter)
    except Stopped:
        return None
    finally:
        reporter.flush()


class _StepReporter:
    """Counts the steps of a worker and reports them at intervals."""

    def __init__(self, condition: str, context: JobContext) -> None:
        self._condition, self._context = condition, context
        self._phase, self._count = "", 0
        self._since_s = time.monotonic()

    def __call__(self, phase: str) -> None:
        if self._context.stopped():
            raise Stopped
        if phase != self._phase or time.monotonic() - self._since_s > _REPORT_EVERY_S:
            self.flush()
        self._phase = phase
        self._count += 1

    def flush(self) -> None:
        now_s = time.monotonic()
        if self._count:
            self._context.report(StepReport(self._condition, self._phase, self._count, now_s - self._since_s))
        self._count, self._since_s = 0, now_s
