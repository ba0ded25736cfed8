"""All chains on one scene, from its first frame to their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from edge_vision.evaluate import baselines
from edge_vision.evaluate.chains.chain import Chain, ChainRecord
from edge_vision.evaluate.chains.id_switches import id_switches
from edge_vision.evaluate.chains.savings import RIVALS, checks, rival_at_recall
from edge_vision.evaluate.chains.simulate import Published, with_line, with_tracker, without_tracker
from edge_vision.evaluate.chains.stages import cascade_of
from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.gate.condition_run import events_of
from edge_vision.evaluate.metrics import Cost, figures
from edge_vision.evaluate.process_pool import frames_of
from edge_vision.evaluate.reference.detector import (
    FrameEvent,
    Reference,
    ReferenceDetector,
    TruthBoxes,
    frame_of,
    reference_of,
)
from edge_vision.evaluate.reference.events import Event, track_ids
from edge_vision.gate.frame_gate import GateConfig

INTERVALS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30)
OURS = ("gate", "gate_tracking", "gate_cascade", "full")
DETECTOR_SAMPLES = 80
"""So often the detector's cost is measured on a scene, between the chains: it has their load and caches."""


@dataclass(frozen=True, slots=True)
class ChainsRun:
    """Compares the chains on a scene. settings: the gate's in "full"; cascade: bundles, its stages."""

    quick: bool
    settings: tuple[tuple[str, float | int | bool], ...]
    cascade: tuple[str, ...] = ()

    def n_simulated(self) -> int:
        """One step for each chain, and for each interval of the rivals."""
        return 1 + len(OURS) + len(RIVALS) * len(INTERVALS)

    def evaluate(self, condition: Condition, detector: ReferenceDetector, tick: FrameEvent) -> dict[str, Any]:
        """The scene's part of report.json. Raises EvaluateError."""
        reference = reference_of(condition, frames_of(condition, self.quick), detector, tick)
        events, truth, note = events_of(condition, reference)
        seen = _look(condition, reference, self, detector, tick)
        book = _Book(replace(reference, detector_cpu_s=seen.detector_cpu_s), events, truth, tick)
        chains = _chains(book, seen)
        sweep = _sweep(book, seen.camera)
        kind = condition.kind
        chains[RIVALS[0]] = rival_at_recall(kind, sweep, chains["full"])
        return {
            "constructed": condition.constructed,
            "kind": kind,
            "split": condition.split,
            "fps_hz": condition.fps_hz,
            "frames": len(reference),
            "events": len(events),
            "detector_cpu_s": seen.detector_cpu_s,
            "camera_cpu_s": seen.camera.cpu_s / len(reference),
            "notes": [note] if note else [],
            "cascade": list(self.cascade) or "off",
            "chains": chains,
            "sweep": sweep,
            "checks": checks(kind, chains, sweep),
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What all chains made of a scene, and the detector's cost among them."""

    records: dict[str, ChainRecord]
    camera: baselines.CameraFollower
    detector_cpu_s: float


def _look(
    condition: Condition, reference: Reference, job: ChainsRun, detector: ReferenceDetector, tick: FrameEvent
) -> _Seen:
    """Show every frame to all chains."""
    cascade = cascade_of(job.cascade)
    chains = {
        "gate": Chain(GateConfig()),
        "full": Chain(GateConfig(**dict(job.settings)), cascade_of(job.cascade)),  # type: ignore[arg-type]
    }
    if not cascade.passes_through:
        chains["gate_cascade"] = Chain(GateConfig(), cascade)
    camera = baselines.CameraFollower()
    every = max(1, len(reference) // DETECTOR_SAMPLES)
    cpu_s = []
    shown = 0
    frames = islice(condition.frames(), len(reference))
    for scene, found, low_score in zip(frames, reference.found, reference.low_score, strict=False):
        for chain in chains.values():
            chain.look(frame_of(scene), found, low_score)
        camera.look(frame_of(scene))
        if shown % every == 0:
            cpu_s.append(detector.detect(scene)[2])
        shown += 1
        tick("judge")
    if shown != len(reference):
        raise EvaluateError(
            f"{condition.name}: expected {len(reference)} frames, got {shown}: has the video changed?"
        )
    # A cascade that is off makes no other chain.
    records = {"gate_cascade": chains["gate"].record, **{name: one.record for name, one in chains.items()}}
    return _Seen(records, camera, float(np.median(cpu_s)))


class _Book:
    """Figures of what was published on a scene."""

    def __init__(
        self, reference: Reference, events: Sequence[Event], truth: Sequence[TruthBoxes], tick: FrameEvent
    ) -> None:
        self.reference = reference
        self._events, self._truth, self._tick = events, truth, tick
        self._track_ids = track_ids(reference)

    def figures(self, published: Published, cost: Cost, **more: Any) -> dict[str, Any]:
        """A chain's entry in the report."""
        reference, ids = self.reference, published.ids
        told = figures(published, reference, self._truth, self._events, cost)
        runs = int(published.passed.sum())
        switches = None
        if ids is not None:
            switches = id_switches(published.boxes, ids, reference.found, self._track_ids)
        self._tick("simulate")
        return {
            "detector_runs": runs,
            **{name: told[name] for name in _KEPT},
            "tracker_ms": published.tracker_cpu_s / len(reference) * 1e3,
            "id_switches": switches,
            **more,
        }


_KEPT = (
    "cpu_s_per_1000",
    "recall_100ms",
    "recall_100ms_lower95",
    "recall_300ms",
    "delay_ms_p50",
    "delay_ms_p95",
    "delay_ms_max",
    "frame_f1",
    "worst_gap_ms",
    "late_frames",
    "missed_frames",
)


def _chains(book: _Book, seen: _Seen) -> dict[str, dict[str, Any]]:
    reference, records = book.reference, seen.records
    every = np.ones(len(reference), bool)
    gate, cascade, full = (records[name] for name in ("gate", "gate_cascade", "full"))
    looked = np.array(gate.accepted)
    tracked = with_line(looked, reference, gate.motions, gate.at_rest)
    whole = with_line(np.array(full.accepted), reference, full.motions, full.at_rest)
    return {
        "every_frame": book.figures(without_tracker(every, reference), Cost()),
        "gate": book.figures(without_tracker(looked, reference), _paid(gate)),
        "gate_tracking": book.figures(tracked, _paid(gate)),
        "gate_cascade": _with_cascade(
            book, without_tracker(np.array(cascade.accepted), reference), cascade, reference
        ),
        "full": _with_cascade(book, whole, full, reference),
    }


def _paid(record: ChainRecord) -> Cost:
    return Cost(record.gate_ms, record.gate_cpu_s + record.cascade_cpu_s)


def _with_cascade(
    book: _Book, published: Published, record: ChainRecord, reference: Reference
) -> dict[str, Any]:
    n = len(record.passed)
    return book.figures(
        published,
        _paid(record),
        gate_ms=record.gate_cpu_s / n * 1e3,
        cascade_ms=record.cascade_cpu_s / n * 1e3,
        cascade_ms_p50=float(np.median(record.cascade_ms)) if record.cascade_ms else None,
        passed=sum(record.passed),
        recall_of_passed=_recall_of_passed(record, reference),
        reasons=dict(sorted(record.reasons.items())),
        cascade_reasons=dict(sorted(record.cascade_reasons.items())),
    )


def _recall_of_passed(record: ChainRecord, reference: Reference) -> float | None:
    """Of the frames that the gate passed and that hold an object, the share that the cascade accepted."""
    there = np.array([len(found) > 0 for found in reference.found]) & np.array(record.passed)
    return float(np.array(record.accepted)[there].mean()) if there.any() else None


def _sweep(book: _Book, camera: baselines.CameraFollower) -> dict[str, list[dict[str, Any]]]:
    """The rivals' figures for each interval."""
    reference = book.reference
    motions: Mapping[str, tuple[list[np.ndarray | None] | None, float]] = {
        RIVALS[0]: (camera.motions, camera.cpu_s),
        RIVALS[1]: (None, 0.0),
    }
    return {
        name: [
            book.figures(
                with_tracker(baselines.every(n, len(reference)), reference, moved),
                Cost((), cpu_s),
                interval_frames=n,
            )
            for n in INTERVALS
        ]
        for name, (moved, cpu_s) in motions.items()
    }
