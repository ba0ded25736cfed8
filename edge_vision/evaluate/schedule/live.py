"""Plays a clip in the running pipeline: the CPU time of the whole process, and what is published."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edge_vision.core.config_files import config_file
from edge_vision.core.detections import Detections
from edge_vision.core.missing_package import missing_package
from edge_vision.core.progress import ProgressLine
from edge_vision.evaluate.condition_data import ConditionData, load_condition_data
from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.live.pipeline_process import PIPELINE, PipelineProcess, isolate_domain
from edge_vision.evaluate.live.run_record import RunRecord
from edge_vision.evaluate.metrics.builtin import METRICS
from edge_vision.evaluate.metrics.frame_f1 import ghost_boxes
from edge_vision.evaluate.metrics.metric import Cost, MethodRun, compute_all
from edge_vision.evaluate.presets import PRESETS, preset_file
from edge_vision.evaluate.process_pool import frames_of
from edge_vision.evaluate.reference.detector import BACKEND, BUNDLE, ReferenceDetector
from edge_vision.evaluate.selection import Selected
from edge_vision.evaluate.simulation import Published

MIN_PLAY_S, MAX_ROUNDS = 20.0, 3
"""A chain plays a short clip repeatedly, until it has played so long; the median counts."""
MAX_START_S = 60.0
SETTLE_S = 0.5
FIXED_INTERVAL = "edge_vision.evaluate.schedule.fixed_interval"
_SHOWN = ("frame_f1", "fidelity", "recall_100ms", "delay_ms_p95", "inferred_share")
_EVERY_FRAME = ("gate:enabled:=false", "detector:publish_tracked:=false", "detector:publish_low_score:=false")
_FIXED = ("detector:publish_tracked:=true", "detector:publish_low_score:=false")
Result = dict[str, Any]


def measure(selected: Selected, result: Result, quick: bool, changes: Sequence[str], logs: Path) -> None:
    """Add `process_cpu_s_per_1000` and `live` to each chain of a clip's result.

    Chains with the same interval share their runs. The rounds alternate in order. changes: NAME=VALUE of the
    gate. logs: folder for the output of the pipelines. Raises EvaluateError.
    """
    condition, video = selected
    assert video is not None
    isolate_domain()
    logs.mkdir(parents=True, exist_ok=True)
    data = load_condition_data(condition, frames_of(condition, quick), ReferenceDetector(), lambda _: None)
    programs = {
        _run_of(name, entry): _program(name, entry, changes) for name, entry in result["chains"].items()
    }
    duration_s = len(data.reference) / condition.fps_hz
    rounds = min(MAX_ROUNDS, math.ceil(MIN_PLAY_S / duration_s))
    played: dict[str, list[Result]] = {run: [] for run in programs}
    line = ProgressLine()
    for number in range(rounds):
        for run, program in list(programs.items())[:: -1 if number % 2 else 1]:
            line.show(f"live: {condition.name}, {run}, round {number + 1} of {rounds}, {duration_s:.0f} s")
            log = logs / f"{condition.name}-{run}.log"
            played[run].append(_play(condition, video, program, data, result["cuts"], log))
    line.end()
    for name, entry in result["chains"].items():
        entry["live"] = _medians(played[_run_of(name, entry)])
        entry["process_cpu_s_per_1000"] = entry["live"]["process_cpu_s_per_1000"]


def _run_of(name: str, entry: Result) -> str:
    """What distinguishes the runs: a preset, or an interval."""
    return name if name in PRESETS else f"every_{entry['interval_frames']}"


def _program(name: str, entry: Result, changes: Sequence[str]) -> tuple[list[str], list[str]]:
    """The module with its first arguments, and the ROS arguments, of a chain."""
    if name in PRESETS:
        given = [f"gate:{change.replace('=', ':=', 1)}" for change in changes]
        return list(PIPELINE), ["--params-file", str(preset_file(name)), *_overrides(given)]
    if entry["interval_frames"] == 1:
        return list(PIPELINE), _overrides(_EVERY_FRAME)
    return [FIXED_INTERVAL, str(entry["interval_frames"])], _overrides(_FIXED)


def _overrides(given: Sequence[str]) -> list[str]:
    return [text for one in given for text in ("-p", one)]


class LiveRecord(RunRecord):
    """Also records predicted boxes, and the CPU time of the pipeline when the first frame arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.process: PipelineProcess | None = None
        self.tracked: dict[int, Detections] = {}
        self.first_index, self.last_index = 0, -1
        self.first_cpu_s = 0.0

    def on_tracked(self, stamp_ns: int, found: Detections) -> None:
        """See PipelineObserver."""
        self.tracked[stamp_ns] = found

    def on_source(self, stamp_ns: int, index: int) -> None:
        """See PipelineObserver."""
        super().on_source(stamp_ns, index)
        if self.last_index < 0:
            self.first_index, self.first_cpu_s = index, self.cpu_s()
        self.last_index = index

    def cpu_s(self) -> float:
        """CPU time of the pipeline so far."""
        usage = self.process.measure() if self.process else None
        return usage.cpu_s or 0.0 if usage else 0.0

    def published(self, n: int) -> Published:
        """What was published on each of the first n frames; nothing where nothing was received."""
        inferred, detections = np.zeros(n, bool), [Detections.empty()] * n
        for stamp_ns, found in self.tracked.items():
            if (at := self.index_of.get(stamp_ns, n)) < n:
                detections[at] = found
        for at, found in self.by_frame().items():
            if at < n:
                inferred[at], detections[at] = True, found
        return Published(inferred, detections)


def _play(
    condition: Condition,
    video: str,
    program: tuple[list[str], list[str]],
    data: ConditionData,
    cuts: Sequence[int],
    log: Path,
) -> Result:
    """The figures of one run. Raises EvaluateError if the pipeline does not play the clip."""
    module, ros_arguments = program
    defaults = config_file("pipeline.yaml")
    arguments = ["--source", video, "--model", BUNDLE, "--backend", BACKEND, "--ros-args"]
    arguments += ["--params-file", str(defaults)] if defaults else []
    n = len(data.reference)
    limit_s = MAX_START_S + 2.0 * n / condition.fps_hz
    record, cpu_s = _observed(module, [*arguments, *ros_arguments], log, n, limit_s)
    published = record.published(n)
    if not published.inferred.any():
        raise EvaluateError(f"{condition.name}: no detection came from the running pipeline; see {log}")
    figures = compute_all(METRICS, MethodRun(data, published, Cost()))
    return {
        "process_cpu_s_per_1000": cpu_s / max(1, record.last_index - record.first_index) * 1000,
        **{name: figures[name] for name in _SHOWN},
        "ghosts": ghost_boxes(
            published.detections, published.inferred.tolist(), data.reference.detections, cuts
        ),
        "superseded": record.ledger["superseded"],
        "rss_mb": record.process.peak_mb if record.process else None,
    }


def _observed(
    module: list[str], arguments: list[str], log: Path, n: int, limit_s: float
) -> tuple[LiveRecord, float]:
    """What was received until frame n, and the CPU seconds since the first frame."""
    try:
        from edge_vision.nodes.monitoring.pipeline_monitor import PipelineMonitor
    except ModuleNotFoundError as error:
        raise EvaluateError(f"--live: {missing_package(error)}; or give --live none") from None
    record = LiveRecord()
    with PipelineMonitor(record, tracked=True) as monitor:
        monitor.spin(SETTLE_S)
        process = record.process = PipelineProcess(arguments, log, module)
        try:
            while not _is_over(record, n, limit_s):
                monitor.spin(0.1)
            monitor.spin(SETTLE_S)
            return record, record.cpu_s() - record.first_cpu_s
        finally:
            process.stop(meanwhile=monitor.spin)


def _is_over(record: LiveRecord, n: int, limit_s: float) -> bool:
    process = record.process
    assert process is not None
    ended = process.returncode is not None or time.monotonic() - process.started_s > limit_s
    return ended or record.finished or record.last_index >= n - 1


def _medians(runs: Sequence[Result]) -> Result:
    """The median of each figure over the rounds, and the CPU of each round."""
    shown: Result = {"rounds_cpu_s_per_1000": [one["process_cpu_s_per_1000"] for one in runs]}
    for key in runs[0]:
        values = [one[key] for one in runs if one[key] is not None]
        shown[key] = median(values) if values else None
    return shown
