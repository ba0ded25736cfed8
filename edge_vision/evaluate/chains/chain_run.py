"""All chains and baselines on one condition, from its first frame to the figures of the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_vision.evaluate import baselines
from edge_vision.evaluate.chains.chain import Chain
from edge_vision.evaluate.chains.savings import BASELINES, baseline_at_recall, checks
from edge_vision.evaluate.chains.stages import cascade_of
from edge_vision.evaluate.condition_data import load_condition_data
from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.gate.recorded_gate import GateRecord, error_notes
from edge_vision.evaluate.metrics.builtin import METRICS
from edge_vision.evaluate.metrics.metric import Cost, MethodRun, load_metrics
from edge_vision.evaluate.observe import FrameConsumer, observe
from edge_vision.evaluate.presets import gate_config
from edge_vision.evaluate.process_pool import frames_of
from edge_vision.evaluate.reference.detector import Reference, ReferenceDetector, StepCallback
from edge_vision.evaluate.results import condition_header, method_entry
from edge_vision.evaluate.simulation import (
    Published,
    assumed,
    with_tracks,
    without_tracker,
)
from edge_vision.gate.frame_gate import GateConfig

INTERVALS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30)
OUR_CHAINS = ("gate", "gate_tracking", "gate_cascade", "full")
CHAINS = ("every_frame", BASELINES[0], *OUR_CHAINS)
"""In the order of the reports. The second one is the fixed interval at the recall of `full`."""

Entry = dict[str, Any]
Measure = Callable[[Published, Cost], Entry]
"""Computes the report entry of one method."""


@dataclass(frozen=True, slots=True)
class ChainsRun:
    """Compares chains on a condition. settings: of the gate in "full"; cascade: the bundles of its stages.

    metrics: "module:Class" of those beside the built-in ones.
    """

    quick: bool
    settings: tuple[tuple[str, float | int | bool], ...]
    cascade: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()

    def n_simulated(self) -> int:
        """One step per chain and per interval of the baselines."""
        return 1 + len(OUR_CHAINS) + len(BASELINES) * len(INTERVALS)

    def evaluate(
        self, condition: Condition, detector: ReferenceDetector, on_step: StepCallback
    ) -> dict[str, Any]:
        """The condition's part of report.json. Raises EvaluateError."""
        metrics = load_metrics(METRICS, self.metrics)
        data = load_condition_data(condition, frames_of(condition, self.quick), detector, on_step)
        cascade = cascade_of(self.cascade)
        ours = {
            "gate": Chain(GateConfig()),
            "full": Chain(gate_config(dict(self.settings)), cascade_of(self.cascade)),
        }
        # Without a cascade, "gate_cascade" is the gate alone.
        ours["gate_cascade"] = ours["gate"] if cascade.passes_through else Chain(GateConfig(), cascade)
        camera = baselines.CameraMotionEstimator()
        consumers: list[FrameConsumer] = [chain.process for chain in dict.fromkeys(ours.values())]
        consumers.append(camera.process)
        cpu_s = observe(condition, data.reference, consumers, on_step, detector)
        data = replace(data, reference=replace(data.reference, detector_cpu_s=cpu_s))

        def measure(published: Published, cost: Cost) -> Entry:
            entry = method_entry(metrics, MethodRun(data, published, cost))
            on_step("simulate")
            return entry | {"tracker_ms": published.tracker_cpu_s / len(data.reference) * 1e3}

        chains = _chains(data.reference, ours, measure)
        sweep = _sweep(data.reference, camera, measure)
        chains[BASELINES[0]] = baseline_at_recall(condition.kind, sweep, chains["full"])
        return {
            **condition_header(condition, data),
            "detector_cpu_s": cpu_s,
            "camera_cpu_s": camera.cpu_s / len(data.reference),
            "notes": [*data.notes, *error_notes({name: one.record for name, one in ours.items()})],
            "cascade": list(self.cascade) or "off",
            "chains": chains,
            "sweep": sweep,
            "checks": checks(condition.kind, chains, sweep),
        }


def _chains(reference: Reference, ours: Mapping[str, Chain], measure: Measure) -> dict[str, Entry]:
    gate, cascade, full = (ours[name] for name in ("gate", "gate_cascade", "full"))
    every = np.ones(len(reference), bool)
    gate_only = without_tracker(np.array(gate.record.accepted), reference)
    cascade_only = without_tracker(np.array(cascade.record.accepted), reference)
    return {
        "every_frame": measure(without_tracker(every, reference), Cost()),
        "gate": measure(gate_only, _cost(gate)),
        "gate_tracking": measure(_tracked(gate, reference), _cost(gate)),
        "gate_cascade": measure(cascade_only, _cost(cascade)) | _cascade_entry(cascade, reference),
        "full": measure(_tracked(full, reference), _cost(full)) | _cascade_entry(full, reference),
    }


def _tracked(chain: Chain, reference: Reference) -> Published:
    record = chain.record
    return with_tracks(np.array(record.accepted), reference, record.motions, record.at_rest)


def _cost(chain: Chain) -> Cost:
    return Cost(chain.record.ms, sum(chain.record.cpu_s) + chain.cascade_cpu_s)


def _cascade_entry(chain: Chain, reference: Reference) -> Entry:
    record, n = chain.record, len(chain.record.passed)
    return {
        "gate_ms": sum(record.cpu_s) / n * 1e3,
        "cascade_ms": chain.cascade_cpu_s / n * 1e3,
        "cascade_ms_p50": float(np.median(chain.cascade_ms)) if chain.cascade_ms else None,
        "passed": sum(record.passed),
        "recall_of_passed": _recall_of_passed(record, reference),
        "reasons": dict(sorted(record.reasons.items())),
        "cascade_reasons": dict(sorted(chain.cascade_reasons.items())),
    }


def _recall_of_passed(record: GateRecord, reference: Reference) -> float | None:
    """Share of the passed frames with a detection that the cascade accepted."""
    relevant = np.array([len(found) > 0 for found in reference.detections]) & np.array(record.passed)
    return float(np.array(record.accepted)[relevant].mean()) if relevant.any() else None


def _sweep(
    reference: Reference, camera: baselines.CameraMotionEstimator, measure: Measure
) -> dict[str, list[Entry]]:
    """The figures of the baselines for each interval."""

    def entries(motions: list[np.ndarray] | None, cpu_s: float) -> list[Entry]:
        return [
            measure(with_tracks(baselines.every(n, len(reference)), reference, motions), Cost((), cpu_s))
            | {"interval_frames": n}
            for n in INTERVALS
        ]

    return {BASELINES[0]: entries(assumed(camera.motions), camera.cpu_s), BASELINES[1]: entries(None, 0.0)}
