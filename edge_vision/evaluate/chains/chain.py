"""A chain to evaluate: our gate with an optional cascade, and what their decisions cost.

The cost of gate and cascade is the CPU time of their thread, on every frame that they process. The detector's
cost is measured between them in the same run; its detections come from the reference.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter, thread_time
from typing import Protocol

import numpy as np

from edge_vision.cascade.cascade import CascadeDecision
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.evaluate.gate.recorded_gate import SEED
from edge_vision.gate.frame_gate import FORCED, FrameGate, GateConfig, GateDecision
from edge_vision.tracking.tracker import STATIC_SCENE_REASONS


class CascadeProtocol(Protocol):
    """What a chain needs of a cascade."""

    @property
    def passes_through(self) -> bool: ...

    def decide(self, frame: Frame, regions: np.ndarray, mono_ns: int) -> CascadeDecision: ...


@dataclass(slots=True, eq=False)
class ChainRecord:
    """One entry per frame. passed: by the gate; accepted: by the cascade too, so that the detector runs.

    motions, at_rest: as in `GateRecord`. gate_ms: wall time of each decision, frame_cpu_s: its CPU time;
    cascade_ms: wall time of each frame that reached the cascade; cascade_cpu_s: CPU time of all.
    """

    passed: list[bool] = field(default_factory=list)
    accepted: list[bool] = field(default_factory=list)
    motions: list[np.ndarray | None] = field(default_factory=list)
    at_rest: list[bool] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    cascade_reasons: Counter[str] = field(default_factory=Counter)
    gate_ms: list[float] = field(default_factory=list)
    cascade_ms: list[float] = field(default_factory=list)
    frame_cpu_s: list[float] = field(default_factory=list)
    cascade_cpu_s: float = 0.0

    @property
    def gate_cpu_s(self) -> float:
        """CPU time of all decisions of the gate."""
        return sum(self.frame_cpu_s)


class Chain:
    """A gate, optionally followed by a cascade. It receives the detections of inferred frames."""

    def __init__(self, config: GateConfig, cascade: CascadeProtocol | None = None, seed: int = SEED) -> None:
        self.record = ChainRecord()
        self._gate = FrameGate(config, seed=seed)
        self._cascade = None if cascade is None or cascade.passes_through else cascade

    def process(self, frame: Frame, found: Detections, low_score: Detections) -> None:
        """Decide on a frame. found, low_score: what the detector finds on it."""
        record = self.record
        started, cpu = perf_counter(), thread_time()
        decision = self._gate.decide(frame, frame.stamp_ns)
        record.gate_ms.append((perf_counter() - started) * 1e3)
        record.frame_cpu_s.append(thread_time() - cpu)
        accepted = decision.passed and self._accepts(frame, decision)
        if accepted:
            self._gate.inferred(frame.stamp_ns, found, low_score)
        record.passed.append(decision.passed)
        record.accepted.append(accepted)
        record.motions.append(decision.camera_motion)
        record.at_rest.append(decision.reason in STATIC_SCENE_REASONS)
        record.reasons[decision.reason] += 1

    def _accepts(self, frame: Frame, decision: GateDecision) -> bool:
        # As in the cascade node, forced inferences bypass the cascade.
        if self._cascade is None or decision.reason in FORCED:
            return True
        record = self.record
        started, cpu = perf_counter(), thread_time()
        answer = self._cascade.decide(frame, decision.regions, frame.stamp_ns)
        record.cascade_ms.append((perf_counter() - started) * 1e3)
        record.cascade_cpu_s += thread_time() - cpu
        record.cascade_reasons[answer.reason] += 1
        return answer.accepted
