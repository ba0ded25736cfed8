"""Plays a clip in the running pipeline: the CPU time of the whole process, and what is published."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from edge_vision.core.detections import Detections
from edge_vision.core.missing_package import missing_package
from edge_vision.evaluate.condition_data import ConditionData, load_condition_data
from edge_vision.evaluate.conditions import frames_of
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.live.live_record import LiveRecord
from edge_vision.evaluate.live.pipeline_process import PIPELINE, PipelineProcess, isolate_domain
from edge_vision.evaluate.metrics.builtin import METRICS
from edge_vision.evaluate.metrics.frame_f1 import ghost_boxes
from edge_vision.evaluate.metrics.metric import Cost, MethodRun, compute_all
from edge_vision.evaluate.presets import PRESETS, preset_file
from edge_vision.evaluate.reference.detector import BACKEND, BUNDLE, ReferenceDetector
from edge_vision.evaluate.selection import Selected
from edge_vision.offline.config_files import config_file
from edge_vision.offline.progress import ProgressLine

MIN_PLAY_S, MAX_ROUNDS = 20.0, 3
"""A chain plays a short clip repeatedly, until it has played so long; the median counts."""
MAX_LOST_SHARE = 0.01
"""Frames for which nothing is published are superseded: the machine does not keep up."""
MAX_START_S = 60.0
SETTLE_S = 0.5
FIXED_INTERVAL = "edge_vision.evaluate.schedule.fixed_interval"
_SHOWN = ("frame_f1", "fidelity", "recall_100ms", "recall_300ms", "delay_ms_p95", "inferred_share")
EVERY_FRAME = ("gate:enabled:=false", "detector:publish_tracks:=false", "detector:publish_low_score:=false")
"""Parameters of the pipeline that infers every frame."""
_FIXED = ("detector:publish_tracks:=true", "detector:publish_low_score:=false")
_COUNTS = ("ghosts", "unpublished")
Result = dict[str, Any]
Program = tuple[list[str], list[str]]
"""The module with its first arguments, and the ROS arguments."""


def measure(selected: Selected, result: Result, quick: bool, changes: Sequence[str], logs: Path) -> None:
    """Add `process_cpu_s_per_1000` and `live` to each chain of a clip's result.

    Chains with the same interval share their runs. The rounds alternate in order. changes: NAME=VALUE of the
    gate. logs: folder for the output of the pipelines. Raises EvaluateError.
    """
    isolate_domain()
    logs.mkdir(parents=True, exist_ok=True)
    condition, n = selected.condition, frames_of(selected.condition, quick)
    data = load_condition_data(condition, n, ReferenceDetector(), lambda _: None)
    clip = LiveClip(selected, data, result["cuts"], logs)
    chains: dict[str, Result] = result["chains"]
    programs = {_run_of(name, entry): _program(name, entry, changes) for name, entry in chains.items()}
    rounds = min(MAX_ROUNDS, math.ceil(MIN_PLAY_S * condition.fps_hz / len(data.reference)))
    played: dict[str, list[Result]] = {run: [] for run in programs}
    line = ProgressLine()
    for number in range(rounds):
        for run, program in list(programs.items())[:: -1 if number % 2 else 1]:
            show = partial(line.progress, f"live: {condition.name}, {run}, round {number + 1} of {rounds}")
            played[run].append(clip.play(run, program, show))
    line.end()
    for name, entry in chains.items():
        entry["live"] = _medians(played[_run_of(name, entry)])
        entry["process_cpu_s_per_1000"] = entry["live"]["process_cpu_s_per_1000"]
    lost = max(entry["live"]["unpublished"] for entry in chains.values())
    if lost > MAX_LOST_SHARE * len(data.reference):
        result["notes"].append(_LOADED.format(lost=lost, n=len(data.reference)))


_LOADED = (
    "live: nothing was published for up to {lost} of {n} frames, because the machine was loaded: process CPU "
    "and live F1 are too low; repeat it on an idle machine"
)


def _run_of(name: str, entry: Result) -> str:
    """What distinguishes the runs: a preset, or an interval."""
    return name if name in PRESETS else f"every_{entry['interval_frames']}"


def _program(name: str, entry: Result, changes: Sequence[str]) -> Program:
    """What runs a chain."""
    if name in PRESETS:
        given = [f"gate:{change.replace('=', ':=', 1)}" for change in changes]
        return list(PIPELINE), ["--params-file", str(preset_file(name)), *_overrides(given)]
    if entry["interval_frames"] == 1:
        return list(PIPELINE), _overrides(EVERY_FRAME)
    return [FIXED_INTERVAL, str(entry["interval_frames"])], _overrides(_FIXED)


def _overrides(given: Sequence[str]) -> list[str]:
    return [text for one in given for text in ("-p", one)]


@dataclass(frozen=True, slots=True, eq=False)
class LiveClip:
    """A clip to play. data: what is published is compared with. cuts: the first frame of each scene. model,
    backend: of the detector. compared: what of an image's detections is compared."""

    selected: Selected
    data: ConditionData
    cuts: Sequence[int]
    logs: Path
    model: str = BUNDLE
    backend: str = BACKEND
    compared: Callable[[Detections], Detections] = lambda found: found

    def play(self, run: str, program: Program, show: Callable[[int, int], None]) -> Result:
        """The figures of one run. show: called with the number of frames so far and of all.

        Raises EvaluateError if the pipeline does not play the clip.
        """
        reference = self.data.reference
        log = self.logs / f"{self.selected.condition.name}-{run}.log"
        record, cpu_s = self._observed(program, log, lambda done: show(done, len(reference)))
        published, unpublished = record.published(len(reference))
        published = replace(published, detections=[self.compared(one) for one in published.detections])
        if not published.inferred.any():
            raise EvaluateError(f"expected detections from the running pipeline, got none; see {log}")
        figures = compute_all(METRICS, MethodRun(self.data, published, Cost()))
        inferred = published.inferred.tolist()
        return {
            "process_cpu_s_per_1000": cpu_s / max(1, record.last_index - record.first_index) * 1000,
            **{name: figures[name] for name in _SHOWN},
            "ghosts": ghost_boxes(published.detections, inferred, reference.detections, self.cuts),
            "unpublished": unpublished,
        }

    def _observed(self, program: Program, log: Path, show: Callable[[int], None]) -> tuple[LiveRecord, float]:
        """What was received until the last frame, and the CPU seconds since the first one."""
        try:
            from edge_vision.nodes.observers.pipeline_monitor import PipelineMonitor
        except ModuleNotFoundError as error:
            raise EvaluateError(f"--live: {missing_package(error)}; or give --live none") from None
        record, n = LiveRecord(), len(self.data.reference)
        limit_s = time.monotonic() + MAX_START_S + 2.0 * n / self.selected.condition.fps_hz
        with PipelineMonitor({"": record}, tracked=True) as monitor:
            monitor.spin(SETTLE_S)
            module, ros_arguments = program
            process = record.process = PipelineProcess([*self._arguments(), *ros_arguments], log, module)
            try:
                while not (process.returncode is not None or record.is_over(n) or time.monotonic() > limit_s):
                    monitor.spin(0.1)
                    show(record.last_index + 1)
                monitor.spin(SETTLE_S)
                return record, record.cpu_s() - record.first_cpu_s
            finally:
                process.stop(meanwhile=monitor.spin)

    def _arguments(self) -> list[str]:
        defaults = config_file("pipeline.yaml")
        arguments = [
            "--source",
            str(self.selected.video),
            "--model",
            self.model,
            "--backend",
            self.backend,
            "--ros-args",
        ]
        return [*arguments, *(["--params-file", str(defaults)] if defaults else [])]


def _medians(runs: Sequence[Result]) -> Result:
    """The median of each figure over the rounds, the maximum of each count, and the CPU of each round."""
    shown: Result = {"rounds_cpu_s_per_1000": [one["process_cpu_s_per_1000"] for one in runs]}
    for key in runs[0]:
        values = [one[key] for one in runs if one[key] is not None]
        shown[key] = (max if key in _COUNTS else median)(values) if values else None
    return shown
