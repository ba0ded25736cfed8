"""What all evaluations do with one condition: play it to the methods, and compute the figures of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.evaluate.condition_data import ConditionData, load_condition_data
from edge_vision.evaluate.conditions import Condition, frames_of
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.gate.recorded_gate import GateRecord, error_notes
from edge_vision.evaluate.metrics.builtin import METRICS
from edge_vision.evaluate.metrics.delays import SOON_MS
from edge_vision.evaluate.metrics.metric import Cost, MethodRun, Metric, compute_all, load_metrics
from edge_vision.evaluate.reference.detector import Reference, ReferenceDetector, StepCallback, frame_of
from edge_vision.evaluate.simulation import Published

Entry = dict[str, Any]
"""A part of report.json."""
FrameConsumer = Callable[[Frame, Detections, Detections], None]
"""Takes a frame, and the detections and low-score detections that an inference on it finds."""
DETECTOR_SAMPLES = 80
"""Inferences per condition that measure the detector's cost, under the load of the consumers."""
MAX_LISTED = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionRun(ABC):
    """The evaluation of one condition. It is sent to worker processes, so it contains plain values only.

    quick: see `frames_of`. metrics: "module:Class" of those beside the built-in ones.
    """

    quick: bool = False
    metrics: tuple[str, ...] = ()

    @abstractmethod
    def n_simulated(self) -> int:
        """Number of steps "simulate" per condition."""

    @abstractmethod
    def compare(self, scene: Scene) -> Entry:
        """The condition's part of the report. Raises EvaluateError."""

    def evaluate(self, condition: Condition, detector: ReferenceDetector, on_step: StepCallback) -> Entry:
        """As `compare`. on_step: called with "detect" and "analyse" per frame and "simulate" per method."""
        metrics = load_metrics(METRICS, self.metrics)
        data = load_condition_data(condition, frames_of(condition, self.quick), detector, on_step)
        return self.compare(Scene(condition, data, metrics, detector, on_step))


@dataclass(slots=True, eq=False)
class Scene:
    """A condition on which methods are compared."""

    condition: Condition
    data: ConditionData
    metrics: Sequence[Metric]
    detector: ReferenceDetector
    on_step: StepCallback

    @property
    def reference(self) -> Reference:
        return self.data.reference

    def play(self, consumers: Sequence[FrameConsumer], time_detector: bool = True) -> None:
        """Pass each frame to all consumers, alternating which is first.

        time_detector: measure the detector's cost between them, on DETECTOR_SAMPLES frames. Raises
        EvaluateError.
        """
        reference = self.reference
        sample_every = max(1, len(reference) // DETECTOR_SAMPLES)
        cpu_s: list[float] = []
        played = 0
        frames = islice(self.condition.frames(), len(reference))
        for frame, found, low_score in zip(frames, reference.detections, reference.low_score, strict=False):
            for consume in consumers if played % 2 else reversed(consumers):
                consume(frame_of(frame), found, low_score)
            if time_detector and played % sample_every == 0:
                cpu_s.append(self.detector.detect(frame)[2])
            played += 1
            self.on_step("analyse")
        if played != len(reference):
            raise EvaluateError(
                f"{self.condition.name}: expected {len(reference)} frames, got {played}: has the video "
                "changed?"
            )
        if cpu_s:
            reference = replace(reference, detector_cpu_s=float(np.median(cpu_s)))
            self.data = replace(self.data, reference=reference)

    def header(self, records: Mapping[str, GateRecord]) -> Entry:
        """What every entry of a condition begins with. records: by the gate's name."""
        condition, data = self.condition, self.data
        return {
            "constructed": condition.constructed,
            "kind": condition.kind,
            "split": condition.split,
            "fps_hz": condition.fps_hz,
            "frames": len(data.reference),
            "events": len(data.events),
            "noise_ceiling": data.noise_ceiling,
            "detector_cpu_s": data.reference.detector_cpu_s,
            "notes": [*data.notes, *error_notes(records)],
        }

    def entry(
        self, published: Published, cost: Cost | None = None, reasons: Counter[str] | None = None
    ) -> Entry:
        """All figures of one method, and the first frames of its missed and late events."""
        run = MethodRun(self.data, published, cost or Cost())
        pairs = list(zip(run.data.events, run.delays, strict=True))
        late = [event.first for event, delay in pairs if not delay.missed and not delay.within(SOON_MS)]
        entry: Entry = {
            **compute_all(self.metrics, run),
            "missed_frames": [event.first for event, delay in pairs if delay.missed][:MAX_LISTED],
            "late_frames": late[:MAX_LISTED],
        }
        if reasons is not None:
            entry["reasons"] = dict(sorted(reasons.items()))
        self.on_step("simulate")
        return entry
