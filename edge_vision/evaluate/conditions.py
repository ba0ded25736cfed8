"""A condition of the evaluation: a constructed sequence with known ground truth, or a real clip without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

SPLITS = ("tune", "holdout")
QUICK_FRAMES = 240

GroundTruth = list[tuple[int, tuple[float, float, float, float], str]]
"""(object_id, visible xyxy_px, label) of each object on a frame."""


@dataclass(frozen=True, slots=True, eq=False)
class ConditionFrame:
    """One frame, (h, w, 3) uint8 BGR, with its ground truth, which is empty for a real clip."""

    image: np.ndarray
    stamp_ns: int
    truth: GroundTruth


class Source(Protocol):
    """Where the frames of a condition come from."""

    def render(self) -> Iterator[tuple[np.ndarray, GroundTruth]]:
        """Each image, (h, w, 3) uint8 BGR, with its ground truth; identical on every call."""

    def fingerprint(self) -> str:
        """A hash of everything that determines the frames."""


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """What a gate is evaluated on. The same name and split give the same frames.

    kind: the name without its split, which selects the targets. make: opens or builds the source.
    n_frames: the expected number of frames; a damaged clip may have fewer.
    """

    name: str
    kind: str
    constructed: bool
    split: str
    fps_hz: float
    n_frames: int
    make: Callable[[], Source] = field(repr=False)
    times_s: tuple[float, ...] = field(default=(), repr=False)
    """Of the frames of a clip, since its first; empty for evenly spaced frames."""

    def frames(self) -> Iterator[ConditionFrame]:
        """All frames in order, rendered lazily."""
        for index, (image, truth) in enumerate(self.make().render()):
            yield ConditionFrame(image, self._stamp_ns(index), truth)

    def _stamp_ns(self, index: int) -> int:
        if self.times_s:
            return round((1 / self.fps_hz + self.times_s[index]) * 1e9)
        return round((index + 1) * 1e9 / self.fps_hz)


def frames_of(condition: Condition, quick: bool) -> int:
    """Number of frames to evaluate. quick: only the first QUICK_FRAMES."""
    return min(condition.n_frames, QUICK_FRAMES) if quick else condition.n_frames
