"""All gates and baselines on one condition, from its first frame to the figures of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_vision.evaluate import baselines
from edge_vision.evaluate.condition_run import ConditionRun, Entry, FrameConsumer, Scene
from edge_vision.evaluate.gate.recorded_gate import OURS, GateRecord, recorded_gate
from edge_vision.evaluate.gate.verdict import verdict
from edge_vision.evaluate.metrics.metric import Cost
from edge_vision.evaluate.simulation import assumed, with_tracks, without_tracker
from edge_vision.gate.frame_gate import GateConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRun(ConditionRun):
    """Evaluates gates on a condition. gates: "module:Class" of those beside ours."""

    gates: tuple[str, ...] = ()

    def n_simulated(self) -> int:
        """One step per method."""
        n_baselines = len(baselines.MOG2_AREAS) + len(baselines.AVERAGE_VARIANTS)
        return len(gate_paths(self.gates)) + 1 + n_baselines + 3 * len(baselines.INTERVALS)

    def compare(self, scene: Scene) -> Entry:
        """See ConditionRun."""
        gates = {name: recorded_gate(path) for name, path in gate_paths(self.gates).items()}
        mog2 = baselines.Mog2()
        averages = {
            name: baselines.RunningAverage(variant) for name, variant in baselines.AVERAGE_VARIANTS.items()
        }
        consumers: list[FrameConsumer] = [one.process for one in gates.values()]
        scene.play([*consumers, *(one.process for one in (mog2, *averages.values()))], time_detector=False)
        records = {name: gate.record for name, gate in gates.items()}
        methods = {
            **_gates(scene, records),
            **_motion_baselines(scene, mog2.record, averages),
            # The fixed intervals get the camera motion that our gate measured, at no cost.
            **_intervals(scene, assumed(records["gate"].motions)),
        }
        kind, period_ms, data = scene.condition.kind, 1000.0 / scene.condition.fps_hz, scene.data
        return {
            **scene.header(records),
            "entries": sum(len(event.entries) for event in data.events),
            "event_frames": [event.first for event in data.events],
            "visible_share": data.visible_share(),
            "detected_share": data.detected_share(),
            "methods": methods,
            "verdict": {name: verdict(kind, methods, name, GateConfig(), period_ms) for name in records},
        }


def gate_paths(paths: Sequence[str]) -> dict[str, str]:
    """Name in the report -> "module:Class". Ours is "gate", others are named by their path."""
    return {"gate": OURS, **{path: path for path in paths if path != OURS}}


def _gates(scene: Scene, records: Mapping[str, GateRecord]) -> Entry:
    """The figures of each gate."""
    return {
        name: scene.entry(
            with_tracks(np.array(record.passed), scene.reference, record.motions, record.at_rest),
            Cost(record.ms, sum(record.cpu_s)),
            record.reasons,
        )
        for name, record in records.items()
    }


def _motion_baselines(
    scene: Scene, mog2: baselines.BaselineRecord, averages: Mapping[str, baselines.RunningAverage]
) -> Entry:
    """Motion gates with the blind-time bound of ours; objects on frames without motion are at rest."""
    moved = {
        "mog2" if area == 1 else f"mog2_area_x{area}": (
            np.array(mog2.scores) >= area * baselines.MOG2_MIN_AREA,
            mog2,
        )
        for area in baselines.MOG2_AREAS
    }
    moved |= {name: (np.array(one.record.scores) > 0, one.record) for name, one in averages.items()}
    figures: Entry = {}
    for name, (frames, record) in moved.items():
        inferred = baselines.bounded(frames, scene.reference.stamps_ns, GateConfig().max_blind_ms)
        published = with_tracks(inferred, scene.reference, None, (~frames).tolist())
        figures[name] = scene.entry(published, Cost(record.ms, sum(record.cpu_s)))
    return figures


def _intervals(scene: Scene, motions: Sequence[np.ndarray]) -> Entry:
    """Every frame, and fixed intervals: without a tracker, with one, with one and the camera's motion."""
    reference = scene.reference
    figures = {"every_frame": scene.entry(without_tracker(np.ones(len(reference), bool), reference))}
    for interval in baselines.INTERVALS:
        inferred = baselines.every(interval, len(reference))
        figures[f"fixed_{interval}"] = scene.entry(without_tracker(inferred, reference))
        figures[f"fixed_tracker_{interval}"] = scene.entry(with_tracks(inferred, reference))
        figures[f"fixed_tracker_cmc_{interval}"] = scene.entry(with_tracks(inferred, reference, motions))
    return figures
