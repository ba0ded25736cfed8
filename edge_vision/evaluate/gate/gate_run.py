"""All gates and baselines on one condition, from its first frame to the figures of the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_vision.evaluate import baselines
from edge_vision.evaluate.condition_data import ConditionData, load_condition_data
from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.gate.recorded_gate import OURS, GateRecord, error_notes, recorded_gate
from edge_vision.evaluate.gate.verdict import verdict
from edge_vision.evaluate.metrics.builtin import METRICS
from edge_vision.evaluate.metrics.metric import Cost, MethodRun, load_metrics
from edge_vision.evaluate.observe import FrameConsumer, observe
from edge_vision.evaluate.process_pool import frames_of
from edge_vision.evaluate.reference.detector import ReferenceDetector, StepCallback
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
        observed = _observe(condition, data, self.gates, on_step)
        methods: dict[str, dict[str, Any]] = {}
        for method in _methods(data, observed):
            methods[method.name] = method_entry(
                metrics, MethodRun(data, method.published, method.cost), method.reasons
            )
            on_step("simulate")
        period_ms = 1000.0 / condition.fps_hz
        return {
            **condition_header(condition, data),
            "entries": sum(len(event.entries) for event in data.events),
            "event_frames": [event.first for event in data.events],
            "visible_share": data.visible_share(),
            "detected_share": data.detected_share(),
            "detector_cpu_s": data.reference.detector_cpu_s,
            "notes": [*data.notes, *error_notes(observed.gates)],
            "methods": methods,
            "verdict": {
                name: verdict(condition.kind, methods, name, GateConfig(), period_ms)
                for name in observed.gates
            },
        }


def gate_paths(paths: Sequence[str]) -> dict[str, str]:
    """Name in the report -> "module:Class". Ours is "gate", others are named by their path."""
    return {"gate": OURS, **{path: path for path in paths if path != OURS}}


@dataclass(frozen=True, slots=True, eq=False)
class _Observed:
    """What all gates and baselines made of the frames of a condition, by name."""

    gates: dict[str, GateRecord]
    mog2: baselines.BaselineRecord
    averages: dict[str, baselines.BaselineRecord]


def _observe(
    condition: Condition, data: ConditionData, paths: Sequence[str], on_step: StepCallback
) -> _Observed:
    """Process every frame with all gates and baselines. Raises EvaluateError."""
    gates = {name: recorded_gate(path) for name, path in gate_paths(paths).items()}
    mog2 = baselines.Mog2()
    averages = {
        name: baselines.RunningAverage(variant) for name, variant in baselines.AVERAGE_VARIANTS.items()
    }
    motion_baselines = (mog2, *averages.values())
    consumers: list[FrameConsumer] = [one.process for one in gates.values()]
    consumers += [one.process for one in motion_baselines]
    observe(condition, data.reference, consumers, on_step)
    return _Observed(
        {name: gate.record for name, gate in gates.items()},
        mog2.record,
        {name: baseline.record for name, baseline in averages.items()},
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Method:
    """One row of the report. reasons: of a gate's decisions."""

    name: str
    published: Published
    cost: Cost
    reasons: Counter[str] | None = None


def _methods(data: ConditionData, observed: _Observed) -> Iterator[_Method]:
    reference, n = data.reference, len(data.reference)
    for name, record in observed.gates.items():
        inferred = np.array(record.passed)
        published = with_tracks(inferred, reference, record.motions, record.at_rest)
        yield _Method(name, published, Cost(record.ms, sum(record.cpu_s)), record.reasons)
    yield _Method("every_frame", without_tracker(np.ones(n, bool), reference), Cost())
    for area in baselines.MOG2_AREAS:
        moved = np.array(observed.mog2.scores) >= area * baselines.MOG2_MIN_AREA
        name = "mog2" if area == 1 else f"mog2_area_x{area}"
        yield _motion_baseline(name, moved, observed.mog2, data)
    for name, baseline in observed.averages.items():
        yield _motion_baseline(name, np.array(baseline.scores) > 0, baseline, data)
    # The fixed intervals get the camera motion that our gate measured, at no cost.
    motions = assumed(observed.gates["gate"].motions)
    for interval in baselines.INTERVALS:
        inferred = baselines.every(interval, n)
        yield _Method(f"fixed_{interval}", without_tracker(inferred, reference), Cost())
        yield _Method(f"fixed_tracker_{interval}", with_tracks(inferred, reference), Cost())
        yield _Method(f"fixed_tracker_cmc_{interval}", with_tracks(inferred, reference, motions), Cost())


def _motion_baseline(
    name: str, moved: np.ndarray, record: baselines.BaselineRecord, data: ConditionData
) -> _Method:
    """A motion gate with the blind-time bound of ours; objects on frames without motion are at rest."""
    inferred = baselines.bounded(moved, data.reference.stamps_ns, GateConfig().max_blind_ms)
    published = with_tracks(inferred, data.reference, None, (~moved).tolist())
    return _Method(name, published, Cost(record.ms, sum(record.cpu_s)))
