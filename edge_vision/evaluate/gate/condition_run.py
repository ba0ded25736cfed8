"""One condition from its first frame to its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from edge_vision.core.geometry.boxes import overlaps_object
from edge_vision.evaluate import baselines
from edge_vision.evaluate.chains.simulate import with_tracker, without_tracker
from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.gate.gate_runner import OURS, GateRecord, GateRunner
from edge_vision.evaluate.gate.verdict import verdict
from edge_vision.evaluate.metrics import Cost, figures
from edge_vision.evaluate.process_pool import frames_of
from edge_vision.evaluate.reference.clips import ClipSource, without_removed
from edge_vision.evaluate.reference.detector import (
    FrameEvent,
    Reference,
    ReferenceDetector,
    TruthBoxes,
    frame_of,
    reference_of,
)
from edge_vision.evaluate.reference.events import Event, clip_entries, clustered, constructed_entries
from edge_vision.evaluate.sequences import sequence
from edge_vision.gate.frame_gate import GateConfig


@dataclass(frozen=True, slots=True)
class GateRun:
    """Judges gates on a condition. places: "module:Class" of those beside ours."""

    places: tuple[str, ...]
    quick: bool

    def n_simulated(self) -> int:
        """One step for each method."""
        return n_methods(self.places)

    def evaluate(self, condition: Condition, detector: ReferenceDetector, tick: FrameEvent) -> dict[str, Any]:
        """All methods on one condition. Raises EvaluateError."""
        return evaluate(condition, self.places, self.quick, detector, tick)


@dataclass(frozen=True, slots=True, eq=False)
class ConditionRecord:
    """What all judges saw of a condition. gates: name -> record."""

    gates: dict[str, GateRecord]
    mog2: baselines.Watch
    averages: dict[str, baselines.Watch]


def gate_names(places: Sequence[str]) -> dict[str, str]:
    """Name in the report -> "module:Class": ours is "gate", others are called by their place."""
    return {"gate": OURS, **{place: place for place in places if place != OURS}}


def evaluate(
    condition: Condition, places: Sequence[str], quick: bool, detector: ReferenceDetector, tick: FrameEvent
) -> dict[str, Any]:
    """All methods on one condition, as in the report.

    tick hears "detect" and "judge" once per frame, "simulate" once per method; it may raise Stopped.
    Raises EvaluateError.
    """
    reference = reference_of(condition, frames_of(condition, quick), detector, tick)
    events, truth, note = events_of(condition, reference)
    seen = look(condition, reference, gate_names(places), tick)
    source = condition.make()
    moving = source.moving()[: len(reference)] if isinstance(source, sequence.Sequence) else None
    methods = _methods(reference, truth, events, seen, moving, tick)
    period_ms = 1000.0 / condition.fps_hz
    return {
        "constructed": condition.constructed,
        "kind": condition.kind,
        "split": condition.split,
        "fps_hz": condition.fps_hz,
        "frames": len(reference),
        "events": len(events),
        "entries": sum(len(event.entries) for event in events),
        "event_frames": [event.first for event in events],
        "visible_share": _share([len(boxes) > 0 for boxes in truth]),
        "seen_share": _seen_share(reference, truth),
        "detector_cpu_s": reference.detector_cpu_s,
        "notes": [*([note] if note else []), *_gate_notes(seen)],
        "methods": methods,
        "verdict": {
            name: verdict(condition.kind, methods, name, GateConfig(), period_ms) for name in seen.gates
        },
    }


def events_of(condition: Condition, reference: Reference) -> tuple[list[Event], Sequence[TruthBoxes], str]:
    """The events of a condition, the boxes of its objects on each frame, and a note."""
    if condition.constructed:
        return clustered(constructed_entries(reference), reference.stamps_ns), reference.truth, ""
    entries, truth = clip_entries(reference)
    source = condition.make()
    note = ""
    if isinstance(source, ClipSource):
        entries, note = without_removed(source.path, entries, truth)
    return clustered(entries, reference.stamps_ns), truth, note


def look(
    condition: Condition, reference: Reference, gates: dict[str, str], tick: FrameEvent
) -> ConditionRecord:
    """Show every frame to all that judge pictures. Raises EvaluateError."""
    judges = {name: GateRunner(place, GateRecord()) for name, place in gates.items()}
    mog2 = baselines.Mog2()
    averages = {
        name: baselines.RunningAverage(variant) for name, variant in baselines.AVERAGE_VARIANTS.items()
    }
    shown = 0
    for scene, found in zip(islice(condition.frames(), len(reference)), reference.found, strict=False):
        frame = frame_of(scene)
        for judge in judges.values():
            judge.look(frame, found)
        for rival in (mog2, *averages.values()):
            rival.look(frame)
        shown += 1
        tick("judge")
    if shown != len(reference):
        raise EvaluateError(
            f"{condition.name}: expected {len(reference)} frames, got {shown}: has the video changed?"
        )
    return ConditionRecord(
        {name: judge.record for name, judge in judges.items()},
        mog2.watch,
        {name: rival.watch for name, rival in averages.items()},
    )


def _methods(
    reference: Reference,
    truth: Sequence[TruthBoxes],
    events: Sequence[Event],
    seen: ConditionRecord,
    moving: np.ndarray | None,
    tick: FrameEvent,
) -> dict[str, dict[str, Any]]:
    n, stamps_ns = len(reference), reference.stamps_ns
    config = GateConfig()
    methods: dict[str, dict[str, Any]] = {}

    def tell(name: str, published: Any, cost: Cost, reasons: Any = None) -> None:
        methods[name] = figures(published, reference, truth, events, cost, reasons, moving)
        tick("simulate")

    for name, record in seen.gates.items():
        published = with_tracker(np.array(record.passed), reference, record.motions, record.at_rest)
        tell(name, published, Cost(record.ms, sum(record.cpu_s)), record.reasons)
    tell("every_frame", without_tracker(np.ones(n, bool), reference), Cost())
    for times in baselines.MOG2_AREAS:
        moved = np.array(seen.mog2.seen) >= times * config.min_changed_area
        passed = baselines.bounded(moved, stamps_ns, config.max_blind_ms)
        name = "mog2" if times == 1 else f"mog2_area_x{times}"
        # What is skipped because nothing moves, rests: as for our gate.
        tell(
            name,
            with_tracker(passed, reference, None, (~moved).tolist()),
            Cost(seen.mog2.ms, sum(seen.mog2.cpu_s)),
        )
    for name, watch in seen.averages.items():
        moved = np.array(watch.seen) > 0
        passed = baselines.bounded(moved, stamps_ns, config.max_blind_ms)
        tell(name, with_tracker(passed, reference, None, (~moved).tolist()), Cost(watch.ms, sum(watch.cpu_s)))
    # Camera motion as our gate measures it, at no charge.
    motions = seen.gates["gate"].motions
    for every in baselines.INTERVALS:
        passed = baselines.every(every, n)
        tell(f"fixed_{every}", without_tracker(passed, reference), Cost())
        tell(f"fixed_tracker_{every}", with_tracker(passed, reference), Cost())
        tell(f"fixed_tracker_cmc_{every}", with_tracker(passed, reference, motions), Cost())
    return methods


def n_methods(places: Sequence[str]) -> int:
    """How many methods are simulated, for the progress."""
    return (
        len(gate_names(places))
        + 1
        + len(baselines.MOG2_AREAS)
        + len(baselines.AVERAGE_VARIANTS)
        + 3 * len(baselines.INTERVALS)
    )


def _gate_notes(seen: ConditionRecord) -> list[str]:
    return [
        f"{name} raised on {record.errors} frames, which count as passed; first: {record.first_error}"
        for name, record in seen.gates.items()
        if record.errors
    ]


def _seen_share(reference: Reference, truth: Sequence[TruthBoxes]) -> float:
    """The share of frames on which the every-frame detector sees one of the objects."""
    pairs = zip(reference.found, truth, strict=True)
    return _share([any(overlaps_object(found, box) for box in boxes.values()) for found, boxes in pairs])


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / max(1, len(flags))
