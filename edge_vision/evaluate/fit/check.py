"""Plays a fitted cascade behind the real gate on a video, and counts what the detector is spared."""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time
from typing import Any

import numpy as np

from edge_vision.cascade.cascade import Cascade, CascadeConfig
from edge_vision.cascade.stages import CascadeStage
from edge_vision.core.detections import Detections
from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.fit.samples import shared
from edge_vision.evaluate.gate.gate_runner import SEED
from edge_vision.evaluate.reference.detector import Reference, frame_of
from edge_vision.gate.frame_gate import FrameGate


def play(
    condition: Condition,
    wanted: Reference,
    stage: CascadeStage,
    told: Callable[[int], None],
    part: np.ndarray | None = None,
    config: CascadeConfig | None = None,
) -> dict[str, Any]:
    """Figures of one clip. wanted: the teacher's boxes. part: (n,) bool, the frames that count; None = all.

    passed: frames that the gate let pass. accepted: those of them that the cascade did. wanted: passed frames
    with a wanted box; wanted_in_region: those where a region of the gate touches one. recall,
    recall_in_region: the shares of those that are accepted. look_cpu_ms: mean CPU time of this thread.
    """
    gate, cascade = FrameGate(seed=SEED), Cascade([stage], config)
    rows: list[tuple[bool, bool, bool]] = []
    looks, cpu_s = 0, 0.0
    for at, scene in enumerate(condition.frames()):
        if at >= len(wanted):
            break
        frame, found = frame_of(scene), wanted.detections[at]
        decision = gate.decide(frame, frame.stamp_ns)
        told(at + 1)
        if not decision.passed:
            continue
        started_s = thread_time()
        judged = cascade.decide(frame, decision.regions, frame.stamp_ns)
        if judged.n_crops:
            cpu_s += thread_time() - started_s
        looks += judged.n_crops
        if judged.accepted:
            gate.inferred(frame.stamp_ns, found)
        if part is None or part[at]:
            rows.append((judged.accepted, len(found) > 0, _touches(decision.regions, found)))
    accepted, has, near = np.array(rows, bool).reshape(-1, 3).T
    return {
        "frames": int(len(wanted) if part is None else part[: len(wanted)].sum()),
        "passed": len(rows),
        "accepted": int(accepted.sum()),
        "wanted": int(has.sum()),
        "recall": _share(accepted[has]),
        "wanted_in_region": int(near.sum()),
        "recall_in_region": _share(accepted[near]),
        "looks": looks,
        "look_cpu_ms": round(cpu_s / looks * 1e3, 2) if looks else None,
    }


def _touches(regions: np.ndarray, found: Detections) -> bool:
    if not len(regions) or not len(found):
        return False
    return bool((shared(np.asarray(regions, np.float64), found.xyxy_px) > 0).any())


def _share(flags: np.ndarray) -> float | None:
    return round(float(flags.mean()), 4) if len(flags) else None
