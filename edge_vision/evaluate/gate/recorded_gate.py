"""Runs a gate, ours or a third-party one, on frame after frame and records its decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
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

    accepted: passed, and not rejected by a cascade: the detector runs. motions: (3, 3) camera motion since
    the previous frame, or None. at_rest: the gate reports that no object moves by itself. ms, cpu_s: of the
    decision. errors: number of exceptions; first_error: the first one.
    """

    passed: list[bool] = field(default_factory=list)
    accepted: list[bool] = field(default_factory=list)
    motions: list[np.ndarray | None] = field(default_factory=list)
    at_rest: list[bool] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    ms: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    errors: int = 0
    first_error: str = ""


def error_notes(records: Mapping[str, GateRecord]) -> list[str]:
    """A note on each gate that raised. records: by the gate's name."""
    return [
        f"{name} raised on {record.errors} frames, which count as passed; first: {record.first_error}"
        for name, record in records.items()
        if record.errors
    ]


def recorded_gate(path: str) -> RecordedGate:
    """The gate at "module:Class". Raises EvaluateError if that is not a gate."""
    gate_class = load_attribute(path, "gate")
    if not callable(getattr(gate_class, "decide", None)):
        raise EvaluateError(f"gate '{path}' has no method decide(frame, mono_ns)")
    try:
        return RecordedGate(gate_class(seed=SEED) if path == OURS else gate_class(), path)
    except Exception as error:  # Third-party code may raise anything.
        raise EvaluateError(
            f"gate '{path}' cannot be made without arguments: {type(error).__name__}: {error}"
        ) from error


def check_gate(path: str) -> None:
    """Raise EvaluateError if a gate cannot be created or does not decide on a grey image."""
    gate = recorded_gate(path)
    gate.process(Frame(np.full((360, 640, 3), 90, np.uint8), 1, "camera"), Detections.empty())
    if gate.record.errors:
        raise EvaluateError(f"gate '{path}' fails on its first frame: {gate.record.first_error}")


class RecordedGate:
    """A gate with its record. It receives the detections of each frame that is inferred.

    If the gate raises, the frame passes, as in the pipeline. path: its name in messages.
    """

    def __init__(self, gate: Any, path: str = OURS) -> None:
        self.record = GateRecord()
        self._gate, self._path = gate, path
        self._inferred = getattr(gate, "inferred", None)

    def process(self, frame: Frame, found: Detections, low_score: Detections | None = None) -> None:
        """Decide on a frame. found, low_score: what the detector finds on it; only our gate gets the latter.

        Raises EvaluateError for an invalid decision.
        """
        record = self.record
        decision = self._timed(lambda: self._gate.decide(frame, frame.stamp_ns), True)
        record.ms.append(self._took_s * 1e3)
        record.cpu_s.append(self._took_cpu_s)
        passed = self._passed(decision)
        accepted = passed and self._accepts(frame, decision)
        inferred = self._inferred
        if accepted and inferred is not None:
            results = (found, low_score) if self._path == OURS else (found,)
            self._timed(lambda: inferred(frame.stamp_ns, *results), None)
            record.cpu_s[-1] += self._took_cpu_s
        record.passed.append(passed)
        record.accepted.append(accepted)
        record.motions.append(self._motion(decision))
        reason = str(getattr(decision, "reason", "passed" if passed else "skipped"))
        record.reasons[reason] += 1
        record.at_rest.append(reason in STATIC_SCENE_REASONS)

    def _accepts(self, frame: Frame, decision: Any) -> bool:
        """Whether a frame that passed is inferred."""
        return True

    def _timed(self, call: Callable[[], Any], otherwise: Any) -> Any:
        """The result of a call; `otherwise` if it raises, which is counted."""
        started, cpu = perf_counter(), thread_time()
        try:
            return call()
        except Exception as error:  # Third-party code may raise anything.
            self._count(error)
            return otherwise
        finally:
            self._took_s, self._took_cpu_s = perf_counter() - started, thread_time() - cpu

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
