"""Gates that look at pictures: ours, anybody's, and what they decided on each frame."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter, thread_time
from typing import Any

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.tracking.tracker import STATIC_SCENE_REASONS

OURS = "edge_vision.gate.frame_gate:FrameGate"
SEED = 3
"""Of our gate's audit: the same frames are sampled each time."""


@dataclass(slots=True, eq=False)
class GateRecord:
    """One entry per frame. motions: (3, 3) camera motion since the frame before, or None.

    at_rest: the gate says that nothing moves by itself.

    ms, cpu_s: of the decision. errors: how often the gate raised, and what it said first.
    """

    passed: list[bool] = field(default_factory=list)
    motions: list[np.ndarray | None] = field(default_factory=list)
    at_rest: list[bool] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    ms: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    errors: int = 0
    first_error: str = ""


def gate_maker(place: str) -> Callable[[], Any]:
    """What makes a fresh gate, from "module:Class". Raises EvaluateError where that is no gate."""
    module_name, _, attribute = place.partition(":")
    if not module_name or not attribute:
        raise EvaluateError(f"expected a gate as module:Class, such as {OURS}, got '{place}'")
    try:
        made = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # Another's module may fail in any way.
        raise EvaluateError(
            f"gate '{place}' cannot be imported: {type(error).__name__}: {error}; is it on PYTHONPATH?"
        ) from error
    if not callable(getattr(made, "decide", None)):
        raise EvaluateError(f"gate '{place}' has no method decide(frame, mono_ns)")
    return (lambda: made(seed=SEED)) if place == OURS else made


def check_gate(place: str) -> None:
    """Raise EvaluateError where a gate cannot be made or gives no decision on a grey picture."""
    record = GateRecord()
    judge = GateRunner(place, record)
    judge.look(Frame(np.full((360, 640, 3), 90, np.uint8), 1, "camera"), Detections.empty())
    if record.errors:
        raise EvaluateError(f"gate '{place}' fails on its first frame: {record.first_error}")


class GateRunner:
    """Shows a gate one frame after another, and tells it what the detector found where it let one pass.

    A gate that raises has let the frame pass, as the pipeline does it.
    """

    def __init__(self, place: str, record: GateRecord) -> None:
        self.record = record
        self._place = place
        make = gate_maker(place)
        try:
            self._gate = make()
        except Exception as error:
            raise EvaluateError(
                f"gate '{place}' cannot be made without arguments: {type(error).__name__}: {error}"
            ) from error
        self._inferred = getattr(self._gate, "inferred", None)

    def look(self, frame: Frame, found: Detections) -> None:
        """Judge a frame on which the detector would find this. Raises EvaluateError for a nonsense answer."""
        record = self.record
        started, cpu = perf_counter(), thread_time()
        try:
            answer = self._gate.decide(frame, frame.stamp_ns)
        except Exception as error:
            self._note(error)
            answer = True
        record.ms.append((perf_counter() - started) * 1e3)
        passed = self._passed(answer)
        if passed and self._inferred is not None:
            try:
                self._inferred(frame.stamp_ns, found)
            except Exception as error:
                self._note(error)
        record.cpu_s.append(thread_time() - cpu)
        record.passed.append(passed)
        record.motions.append(self._motion(answer))
        reason = str(getattr(answer, "reason", "passed" if passed else "skipped"))
        record.reasons[reason] += 1
        record.at_rest.append(reason in STATIC_SCENE_REASONS)

    def _note(self, error: Exception) -> None:
        self.record.errors += 1
        self.record.first_error = self.record.first_error or f"{type(error).__name__}: {error}"

    def _passed(self, answer: Any) -> bool:
        passed = getattr(answer, "passed", answer)
        if not isinstance(passed, bool | np.bool_):
            raise EvaluateError(
                f"gate '{self._place}': expected a GateDecision or a bool from decide(), got {answer!r:.100}"
            )
        return bool(passed)

    def _motion(self, answer: Any) -> np.ndarray | None:
        motion = getattr(answer, "camera_motion", None)
        if motion is None:
            return None
        if not isinstance(motion, np.ndarray) or motion.shape != (3, 3) or not np.isfinite(motion).all():
            raise EvaluateError(
                f"gate '{self._place}': expected camera_motion (3, 3), finite, or None, got {motion!r:.100}"
            )
        return motion
