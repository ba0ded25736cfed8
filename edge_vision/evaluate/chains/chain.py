"""A chain to evaluate: our gate with an optional cascade, and what their decisions cost.

The cost of gate and cascade is the CPU time of their thread, on every frame that they process. The detector's
cost is measured between them in the same run; its detections come from the reference.
"""

from __future__ import annotations

from collections import Counter
from time import perf_counter, thread_time
from typing import Any, Protocol

import numpy as np

from edge_vision.cascade.cascade import CascadeDecision
from edge_vision.core.frame import Frame
from edge_vision.evaluate.gate.recorded_gate import SEED, RecordedGate
from edge_vision.gate.frame_gate import FORCED, FrameGate, GateConfig, GateDecision


class CascadeProtocol(Protocol):
    """What a chain needs of a cascade."""

    @property
    def passes_through(self) -> bool: ...

    def decide(self, frame: Frame, regions: np.ndarray, mono_ns: int) -> CascadeDecision: ...


class Chain(RecordedGate):
    """Our gate, optionally followed by a cascade. It receives the detections of inferred frames.

    cascade_reasons: of the cascade's decisions; cascade_ms: wall time of each; cascade_cpu_s: of all.
    """

    def __init__(self, config: GateConfig, cascade: CascadeProtocol | None = None, seed: int = SEED) -> None:
        super().__init__(FrameGate(config, seed=seed))
        self._cascade = None if cascade is None or cascade.passes_through else cascade
        self.cascade_reasons: Counter[str] = Counter()
        self.cascade_ms: list[float] = []
        self.cascade_cpu_s = 0.0

    def _accepts(self, frame: Frame, decision: Any) -> bool:
        # As in the cascade node, forced inferences bypass it, and so do frames on which the gate failed.
        if self._cascade is None or not isinstance(decision, GateDecision) or decision.reason in FORCED:
            return True
        started, cpu = perf_counter(), thread_time()
        answer = self._cascade.decide(frame, decision.regions, frame.stamp_ns)
        self.cascade_ms.append((perf_counter() - started) * 1e3)
        self.cascade_cpu_s += thread_time() - cpu
        self.cascade_reasons[answer.reason] += 1
        return answer.accepted
