"""All chains and baselines on one condition, from its first frame to the figures of the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_vision.evaluate import baselines
from edge_vision.evaluate.chains.chain import Chain
from edge_vision.evaluate.chains.savings import BASELINES, baseline_at_recall, checks
from edge_vision.evaluate.chains.stages import cascade_of
from edge_vision.evaluate.condition_run import ConditionRun, Entry, FrameConsumer, Scene
from edge_vision.evaluate.gate.recorded_gate import GateRecord
from edge_vision.evaluate.metrics.metric import Cost
from edge_vision.evaluate.presets import gate_config
from edge_vision.evaluate.reference.detector import Reference
from edge_vision.evaluate.simulation import Published, assumed, with_tracks, without_tracker
from edge_vision.gate.frame_gate import GateConfig

INTERVALS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30)
OUR_CHAINS = ("gate", "gate_tracking", "gate_cascade", "full")
CHAINS = ("every_frame", BASELINES[0], *OUR_CHAINS)
"""In the order of the reports. The second one is the fixed interval at the recall of `full`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainsRun(ConditionRun):
    """Compares chains on a condition. settings: of the gate in "full"; cascade: the bundles of its stages."""

    settings: tuple[tuple[str, float | int | bool], ...]
    cascade: tuple[str, ...] = ()

    def n_simulated(self) -> int:
        """One step per chain and per interval of the baselines."""
        return 1 + len(OUR_CHAINS) + len(BASELINES) * len(INTERVALS)

    def compare(self, scene: Scene) -> Entry:
        """See ConditionRun."""
        cascade = cascade_of(self.cascade)
        ours = {
            "gate": Chain(GateConfig()),
            "full": Chain(gate_config(dict(self.settings)), cascade_of(self.cascade)),
        }
        # Without a cascade, "gate_cascade" is the gate alone.
        ours["gate_cascade"] = ours["gate"] if cascade.passes_through else Chain(GateConfig(), cascade)
        camera = baselines.CameraMotionEstimator()
        consumers: list[FrameConsumer] = [chain.process for chain in dict.fromkeys(ours.values())]
        scene.play([*consumers, camera.process])
        kind = scene.condition.kind
        chains, sweep = _chains(scene, ours), _sweep(scene, camera)
        chains[BASELINES[0]] = baseline_at_recall(kind, sweep, chains["full"])
        return {
            **scene.header({name: one.record for name, one in ours.items()}),
            "camera_cpu_s": camera.cpu_s / len(scene.reference),
            "cascade": list(self.cascade) or "off",
            "chains": chains,
            "sweep": sweep,
            "checks": checks(kind, chains, sweep),
        }


def _chains(scene: Scene, ours: Mapping[str, Chain]) -> dict[str, Entry]:
    reference = scene.reference
    gate, cascade, full = (ours[name] for name in ("gate", "gate_cascade", "full"))
    every = np.ones(len(reference), bool)
    gate_only = without_tracker(np.array(gate.record.accepted), reference)
    cascade_only = without_tracker(np.array(cascade.record.accepted), reference)
    return {
        "every_frame": _entry(scene, without_tracker(every, reference), Cost()),
        "gate": _entry(scene, gate_only, _cost(gate)),
        "gate_tracking": _entry(scene, _tracked(gate, reference), _cost(gate)),
        "gate_cascade": _entry(scene, cascade_only, _cost(cascade)) | _cascade_entry(cascade, reference),
        "full": _entry(scene, _tracked(full, reference), _cost(full)) | _cascade_entry(full, reference),
    }


def _entry(scene: Scene, published: Published, cost: Cost) -> Entry:
    tracker_ms = published.tracker_cpu_s / len(scene.reference) * 1e3
    return scene.entry(published, cost) | {"tracker_ms": tracker_ms}


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


def _sweep(scene: Scene, camera: baselines.CameraMotionEstimator) -> dict[str, list[Entry]]:
    """The figures of the baselines for each interval."""
    reference = scene.reference

    def entries(motions: list[np.ndarray] | None, cpu_s: float) -> list[Entry]:
        tracked = {n: with_tracks(baselines.every(n, len(reference)), reference, motions) for n in INTERVALS}
        return [_entry(scene, one, Cost((), cpu_s)) | {"interval_frames": n} for n, one in tracked.items()]

    return {BASELINES[0]: entries(assumed(camera.motions), camera.cpu_s), BASELINES[1]: entries(None, 0.0)}
