"""Runs a gate, ours or a third-party one, on frame after frame and records its decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter, thread_time
from typing import Any

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.plugins import load_attribute
from edge_vision.tracking.tracker import STATIC_SCENE_REASONS

OURS = "edge_vision.gate.frame_gate:FrameGate"
SEED = 3
"""Seed of our gate's audit, so that every run samples the same frames."""


@dataclass(slots=True, eq=False)
class GateRecord:
    """Decisions of a gate, one entry per frame.

    motions: (3, 3) camera motion since the previous frame, or None. at_rest: the gate reports that no object
    moves by itself. ms, cpu_s: of the decision. errors: number of exceptions; first_error: the first one.
    """

    passed: list[bool] = field(default_factory=list)
    motions: list[np.ndarray | None] = field(default_factory=list)
    at_rest: list[bool] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    ms: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    errors: int = 0
    first_error: str = ""


def gate_factory(path: str) -> Callable[[], Any]:
    """What creates a gate, from "module:Class". Raises EvaluateError if that is not a gate."""
    gate_class = load_attribute(path, "gate")
    if not callable(getattr(gate_class, "decide", None)):
        raise EvaluateError(f"gate '{path}' has no method decide(frame, mono_ns)")
    return (lambda: gate_class(seed=SEED)) if path == OURS else gate_class


def check_gate(path: str) -> None:
    """Raise EvaluateError if a gate cannot be created or does not decide on a grey image."""
    gate = RecordedGate(path)
    gate.process(Frame(np.full((360, 640, 3), 90, np.uint8), 1, "camera"), Detections.empty())
    if gate.record.errors:
        raise EvaluateError(f"gate '{path}' fails on its first frame: {gate.record.first_error}")


class RecordedGate:
    """A gate with its record. It receives the detections of each frame that it passes.

    If the gate raises, the frame passes, as in the pipeline.
    """

    def __init__(self, path: str) -> None:
        self.record = GateRecord()
        self._path = path
        create = gate_factory(path)
        try:
            self._gate = create()
        except Exception as error:  # Third-party code may raise anything.
            raise EvaluateError(
                f"gate '{path}' cannot be made without arguments: {type(error).__name__}: {error}"
            ) from error
        self._inferred = getattr(self._gate, "inferred", None)

    def process(self, frame: Frame, found: Detections, low_score: Detections | None = None) -> None:
        """Decide on a frame. found: the detections on it. Raises EvaluateError for an invalid decision."""
        record = self.record
        started, cpu = perf_counter(), thread_time()
        try:
            decision = self._gate.decide(frame, frame.stamp_ns)
        except Exception as error:
            self._count(error)
            decision = True
        record.ms.append((perf_counter() - started) * 1e3)
        passed = self._passed(decision)
        if passed and self._inferred is not None:
            try:
                self._inferred(frame.stamp_ns, found)
            except Exception as error:
                self._count(error)
        record.cpu_s.append(thread_time() - cpu)
        record.passed.append(passed)
        record.motions.append(self._motion(decision))
        reason = str(getattr(decision, "reason", "passed" if passed else "skipped"))
        record.reasons[reason] += 1
        record.at_rest.append(reason in STATIC_SCENE_REASONS)

    def _count(self, error: Exception) -> None:
        self.record.errors += 1
        self.record.first_error = self.record.first_error or f"{type(error).__name__}: {error}"

    def _passed(self, decision: Any) -> bool:
        passed = getattr(decision, "passed", decision)
        if not isinstance(passed, bool | np.bool_):
            raise EvaluateError(
                f"gate '{self._path}': expected a GateDecision or a bool from decide(), got {decision!r:.100}"
            )
        return bool(passed)

    def _motion(self, decision: Any) -> np.ndarray | None:
        motion = getattr(decision, "camera_motion", None)
        if motion is None:
            return None
        if not isinstance(motion, np.ndarray) or motion.shape != (3, 3) or not np.isfinite(motion).all():
            raise EvaluateError(
                f"gate '{self._path}': expected camera_motion (3, 3), finite, or None, got {motion!r:.100}"
            )
        return motion
