"""All gates and baselines on one condition, from its first frame to the figures of the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_vision.evaluate import baselines
from edge_vision.evaluate.condition_data import load_condition_data
from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.gate.recorded_gate import OURS, GateRecord, error_notes, recorded_gate
from edge_vision.evaluate.gate.verdict import verdict
from edge_vision.evaluate.metrics.builtin import METRICS
from edge_vision.evaluate.metrics.metric import Cost, MethodRun, load_metrics
from edge_vision.evaluate.observe import FrameConsumer, observe
from edge_vision.evaluate.process_pool import frames_of
from edge_vision.evaluate.reference.detector import Reference, ReferenceDetector, StepCallback
from edge_vision.evaluate.results import condition_header, method_entry
from edge_vision.evaluate.simulation import Published, assumed, with_tracks, without_tracker
from edge_vision.gate.frame_gate import GateConfig


@dataclass(frozen=True, slots=True)
class GateRun:
    """Evaluates gates on a condition. gates, metrics: "module:Class" of those beside the built-in ones."""

    gates: tuple[str, ...]
    quick: bool
    metrics: tuple[str, ...] = ()

    def n_simulated(self) -> int:
        """One step per method."""
        n_baselines = len(baselines.MOG2_AREAS) + len(baselines.AVERAGE_VARIANTS)
        return len(gate_paths(self.gates)) + 1 + n_baselines + 3 * len(baselines.INTERVALS)

    def evaluate(
        self, condition: Condition, detector: ReferenceDetector, on_step: StepCallback
    ) -> dict[str, Any]:
        """The condition's part of report.json. Raises EvaluateError."""
        metrics = load_metrics(METRICS, self.metrics)
        data = load_condition_data(condition, frames_of(condition, self.quick), detector, on_step)
        gates = {name: recorded_gate(path) for name, path in gate_paths(self.gates).items()}
        mog2 = baselines.Mog2()
        averages = {
            name: baselines.RunningAverage(variant) for name, variant in baselines.AVERAGE_VARIANTS.items()
        }
        consumers: list[FrameConsumer] = [one.process for one in gates.values()]
        consumers += [one.process for one in (mog2, *averages.values())]
        observe(condition, data.reference, consumers, on_step)
        records = {name: gate.record for name, gate in gates.items()}
        methods: dict[str, dict[str, Any]] = {}

        def add(name: str, published: Published, cost: Cost, reasons: Counter[str] | None = None) -> None:
            methods[name] = method_entry(metrics, MethodRun(data, published, cost), reasons)
            on_step("simulate")

        _add_gates(add, data.reference, records)
        _add_motion_baselines(add, data.reference, mog2.record, averages)
        # The fixed intervals get the camera motion that our gate measured, at no cost.
        _add_intervals(add, data.reference, assumed(records["gate"].motions))
        period_ms = 1000.0 / condition.fps_hz
        return {
            **condition_header(condition, data),
            "entries": sum(len(event.entries) for event in data.events),
            "event_frames": [event.first for event in data.events],
            "visible_share": data.visible_share(),
            "detected_share": data.detected_share(),
            "detector_cpu_s": data.reference.detector_cpu_s,
            "notes": [*data.notes, *error_notes(records)],
            "methods": methods,
            "verdict": {
                name: verdict(condition.kind, methods, name, GateConfig(), period_ms) for name in records
            },
        }


def gate_paths(paths: Sequence[str]) -> dict[str, str]:
    """Name in the report -> "module:Class". Ours is "gate", others are named by their path."""
    return {"gate": OURS, **{path: path for path in paths if path != OURS}}


Add = Callable[..., None]
"""Adds the figures of a method: name, published, cost, reasons of a gate's decisions."""


def _add_gates(add: Add, reference: Reference, records: Mapping[str, GateRecord]) -> None:
    for name, record in records.items():
        published = with_tracks(np.array(record.passed), reference, record.motions, record.at_rest)
        add(name, published, Cost(record.ms, sum(record.cpu_s)), record.reasons)


def _add_motion_baselines(
    add: Add,
    reference: Reference,
    mog2: baselines.BaselineRecord,
    averages: Mapping[str, baselines.RunningAverage],
) -> None:
    """Motion gates with the blind-time bound of ours; objects on frames without motion are at rest."""
    moved = {
        "mog2" if area == 1 else f"mog2_area_x{area}": (
            np.array(mog2.scores) >= area * baselines.MOG2_MIN_AREA,
            mog2,
        )
        for area in baselines.MOG2_AREAS
    }
    moved |= {name: (np.array(one.record.scores) > 0, one.record) for name, one in averages.items()}
    for name, (frames, record) in moved.items():
        inferred = baselines.bounded(frames, reference.stamps_ns, GateConfig().max_blind_ms)
        published = with_tracks(inferred, reference, None, (~frames).tolist())
        add(name, published, Cost(record.ms, sum(record.cpu_s)))


def _add_intervals(add: Add, reference: Reference, motions: Sequence[np.ndarray]) -> None:
    """Every frame, and fixed intervals: without a tracker, with one, with one and the camera's motion."""
    n = len(reference)
    add("every_frame", without_tracker(np.ones(n, bool), reference), Cost())
    for interval in baselines.INTERVALS:
        inferred = baselines.every(interval, n)
        add(f"fixed_{interval}", without_tracker(inferred, reference), Cost())
        add(f"fixed_tracker_{interval}", with_tracks(inferred, reference), Cost())
        add(f"fixed_tracker_cmc_{interval}", with_tracks(inferred, reference, motions), Cost())
