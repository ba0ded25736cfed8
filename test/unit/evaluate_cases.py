"""What the tests of the evaluation share: references with hand-written boxes, and third-party gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from box_cases import Box, boxes

from edge_vision.bundles.store import cache_dir
from edge_vision.evaluate.condition_data import ConditionData
from edge_vision.evaluate.reference.detector import Reference
from edge_vision.evaluate.reference.events import Event

PERIOD_NS = 33_333_333
HERE = (100.0, 100.0, 140.0, 200.0)
NEAR = (105.0, 100.0, 145.0, 200.0)
"""IoU with HERE: 35 of 45 columns."""
THERE = (400.0, 100.0, 440.0, 200.0)

_CLIPS = [cache_dir() / "video" / name for name in ("vtest.avi", "bikes.mp4", "bigbuckbunny.mp4")]
needs_clips = pytest.mark.skipif(
    not all(clip.is_file() for clip in _CLIPS), reason="the clips are not there: make test fetches them"
)


def reference(
    found: Sequence[Sequence[Box]], ground_truth: Sequence[dict[int, Box]] | None = None
) -> Reference:
    """A reference at 30 Hz with these detections, and this ground truth, on each frame."""
    n = len(found)
    stamps_ns = np.arange(1, n + 1, dtype=np.int64) * PERIOD_NS
    detections = [boxes(*one) for one in found]
    objects = [_float_boxes(one) for one in ground_truth or [{}] * n]
    return Reference(stamps_ns, detections, [boxes()] * n, objects, 0.02, (640, 360))


def condition_data(
    reference: Reference, events: Sequence[Event] = (), object_boxes: Sequence[dict[int, Box]] | None = None
) -> ConditionData:
    """Condition data with these events; the boxes of their objects are the ground truth by default."""
    objects = reference.ground_truth if object_boxes is None else [_float_boxes(one) for one in object_boxes]
    return ConditionData(reference, events, objects)


def _float_boxes(objects: dict[int, Box]) -> dict[int, np.ndarray]:
    return {object_id: np.array(box, np.float32) for object_id, box in objects.items()}


class Alternating:
    """Passes every other frame and answers with a bool."""

    def __init__(self) -> None:
        self.n = 0

    def decide(self, frame: Any, mono_ns: int) -> bool:
        self.n += 1
        return self.n % 2 == 1


class RaisesLater(Alternating):
    """Raises on its third frame."""

    def decide(self, frame: Any, mono_ns: int) -> bool:
        if self.n == 2:
            self.n += 1
            raise ZeroDivisionError("three is too much")
        return super().decide(frame, mono_ns)


class RaisesAtOnce:
    def decide(self, frame: Any, mono_ns: int) -> bool:
        raise RuntimeError("not today")


class Nonsense:
    def decide(self, frame: Any, mono_ns: int) -> str:
        return "maybe"


class BadMotion:
    passed = True
    reason = "because"
    camera_motion = np.eye(2)

    def decide(self, frame: Any, mono_ns: int) -> Any:
        return self


class NeedsMore:
    def __init__(self, camera: str) -> None:
        self.camera = camera

    def decide(self, frame: Any, mono_ns: int) -> bool:
        return True


class NoDecide:
    pass
