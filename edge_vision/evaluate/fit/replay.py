"""Replays a fitted cascade behind the real gate on a video, and counts the inferences that it saves."""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time
from typing import Any

import numpy as np

from edge_vision.cascade.cascade import Cascade, CascadeConfig
from edge_vision.cascade.stages import CascadeStage
from edge_vision.core.detections import Detections
from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.fit.samples import intersection_areas
from edge_vision.evaluate.gate.recorded_gate import SEED
from edge_vision.evaluate.reference.detector import Reference, frame_of
from edge_vision.gate.frame_gate import FrameGate


def replay(
    condition: Condition,
    reference: Reference,
    stage: CascadeStage,
    on_frame: Callable[[int], None],
    part: np.ndarray | None = None,
    config: CascadeConfig | None = None,
) -> dict[str, Any]:
    """Figures of one clip. reference: the teacher's wanted boxes. part: (n,) bool, counted frames; None: all.
    on_frame: called with the number of processed frames.

    passed: frames that the gate passed; accepted: those that the cascade accepted too. wanted: passed frames
    with a wanted box; wanted_in_region: those where a region of the gate overlaps one. recall,
    recall_in_region: the accepted shares of those. crop_cpu_ms: mean CPU time per crop of this thread.
    """
    gate, cascade = FrameGate(seed=SEED), Cascade([stage], config)
    rows: list[tuple[bool, bool, bool]] = []
    n_crops, cpu_s = 0, 0.0
    for at, scene in enumerate(condition.frames()):
        if at >= len(reference):
            break
        frame, found = frame_of(scene), reference.detections[at]
        decision = gate.decide(frame, frame.stamp_ns)
        on_frame(at + 1)
        if not decision.passed:
            continue
        started_s = thread_time()
        answer = cascade.decide(frame, decision.regions, frame.stamp_ns)
        if answer.n_crops:
            cpu_s += thread_time() - started_s
        n_crops += answer.n_crops
        if answer.accepted:
            gate.inferred(frame.stamp_ns, found)
        if part is None or part[at]:
            rows.append((answer.accepted, len(found) > 0, _overlaps(decision.regions, found)))
    accepted, wanted, in_region = np.array(rows, bool).reshape(-1, 3).T
    return {
        "frames": int(len(reference) if part is None else part[: len(reference)].sum()),
        "passed": len(rows),
        "accepted": int(accepted.sum()),
        "wanted": int(wanted.sum()),
        "recall": _share(accepted[wanted]),
        "wanted_in_region": int(in_region.sum()),
        "recall_in_region": _share(accepted[in_region]),
        "crops": n_crops,
        "crop_cpu_ms": round(cpu_s / n_crops * 1e3, 2) if n_crops else None,
    }


def _overlaps(regions: np.ndarray, found: Detections) -> bool:
    if not len(regions) or not len(found):
        return False
    return bool((intersection_areas(np.asarray(regions, np.float64), found.xyxy_px) > 0).any())


def _share(flags: np.ndarray) -> float | None:
    return round(float(flags.mean()), 4) if len(flags) else None
