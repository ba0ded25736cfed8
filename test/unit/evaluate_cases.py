"""What the tests of the evaluation share: tables of boxes made by hand, and gates that misbehave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from box_cases import Box, boxes

from edge_vision.bundles.store import cache_dir
from edge_vision.evaluate.reference.detector import Reference

PERIOD_NS = 33_333_333
HERE = (100.0, 100.0, 140.0, 200.0)
NEAR = (105.0, 100.0, 145.0, 200.0)
"""IoU with HERE: 35 of 45 columns."""
THERE = (400.0, 100.0, 440.0, 200.0)

_CLIPS = [cache_dir() / "video" / name for name in ("vtest.avi", "bikes.mp4", "bigbuckbunny.mp4")]
needs_clips = pytest.mark.skipif(
    not all(clip.is_file() for clip in _CLIPS), reason="the clips are not there: make test fetches them"
)


def reference(found: Sequence[Sequence[Box]], truth: Sequence[dict[int, Box]] | None = None) -> Reference:
    """A reference at 30 Hz with these boxes, and this truth, on each frame."""
    stamps_ns = np.arange(1, len(found) + 1, dtype=np.int64) * PERIOD_NS
    known = [{i: np.array(box, np.float32) for i, box in one.items()} for one in truth or [{}] * len(found)]
    told = [boxes(*one) for one in found]
    return Reference(stamps_ns, told, [boxes()] * len(found), known, 0.02, (640, 360))


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
