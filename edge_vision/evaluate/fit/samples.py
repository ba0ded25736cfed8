"""Looks with labels: where a cascade would look, whether something wanted is there, and its features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edge_vision.cascade import tiling
from edge_vision.core.frame import Frame
from edge_vision.detect.classifier import crop, sliceable
from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.fit.splits import CALIBRATE, NEITHER, Split
from edge_vision.evaluate.gate.gate_runner import SEED
from edge_vision.evaluate.reference.detector import Reference, frame_of
from edge_vision.gate.frame_gate import FrameGate

WANTED, NOTHING, UNCLEAR = 1, 0, -1
MIN_OVERLAP = 0.5
"""A look that holds this share of a box, or is filled by it to this share, shows it."""
SLIGHT_OVERLAP = 0.1
"""A look that holds less of every box shows nothing; between the two nobody can say."""
REGION_LOOKS, TILE_LOOKS, BOX_LOOKS = 6, 3, 3
"""At most so many of a frame: at the gate's regions, at random tiles, at the teacher's boxes."""
JITTER = 0.15
"""A region of the gate is not a box of the detector: sides move by up to this share."""
MAX_FRAMES = 1500

Features = Callable[[list[Frame]], np.ndarray]
"""Parts of frames -> (n, k) float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Looks of one clip. features: (n, k) float32. labels: (n,) 1, 0 or -1. part: (n,) as in `Split`.

    trial_features: of each event of the calibration the features of its looks, (m, k).
    """

    features: np.ndarray
    labels: np.ndarray
    part: np.ndarray
    trial_features: list[np.ndarray]

    @staticmethod
    def joined(several: list[Samples]) -> Samples:
        """Of several clips."""
        return Samples(
            np.concatenate([one.features for one in several]),
            np.concatenate([one.labels for one in several]),
            np.concatenate([one.part for one in several]),
            [rows for one in several for rows in one.trial_features],
        )


def label_of(looks: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(n,) WANTED, NOTHING or UNCLEAR of looks (n, 4), by the wanted boxes (m, 4)."""
    if not len(boxes):
        return np.full(len(looks), NOTHING)
    both = shared(looks, boxes)
    of_box = (both / np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1e-9)).max(axis=1)
    of_look = (both / np.maximum(np.prod(looks[:, 2:] - looks[:, :2], axis=1), 1e-9)[:, None]).max(axis=1)
    shows = (of_box >= MIN_OVERLAP) | (of_look >= MIN_OVERLAP)
    return np.where(shows, WANTED, np.where(of_box < SLIGHT_OVERLAP, NOTHING, UNCLEAR))


def shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) area that boxes (n, 4) and (m, 4) have in common."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    return np.asarray(np.prod(np.maximum(sides, 0.0), axis=2))


class Sampler:
    """Takes the looks of one clip, frame by frame. The gate sees every frame, with what the teacher found."""

    def __init__(self, reference: Reference, split: Split, look_share: float, features: Features) -> None:
        self._reference, self._split, self._share = reference, split, look_share
        self._features = features
        self._gate = FrameGate(seed=SEED)
        self._rng = np.random.default_rng(SEED)
        self._every = max(1, len(reference) // MAX_FRAMES)
        self._rows: list[tuple[np.ndarray, np.ndarray, int]] = []
        self._trials: list[np.ndarray] = []

    def take(self, condition: Condition, told: Callable[[int], None]) -> Samples:
        """All looks. told is told the number of frames done."""
        for at, scene in enumerate(condition.frames()):
            if at >= len(self._reference):
                break
            self._frame(at, frame_of(scene))
            told(at + 1)
        return self._samples()

    def _frame(self, at: int, frame: Frame) -> None:
        boxes, part = self._reference.detections[at].xyxy_px, int(self._split.part[at])
        decision = self._gate.decide(frame, frame.stamp_ns)
        if decision.passed:
            self._gate.inferred(frame.stamp_ns, self._reference.detections[at])
        for trial in self._split.trials:
            if trial.frame == at:
                self._trials.append(self._see(frame, self._looks_at(trial.box[None], frame)))
        if part == NEITHER or at % self._every:
            return
        looks = np.concatenate(list(self._looks(frame, decision.regions, boxes)))
        if part != CALIBRATE and len(self._split.held_out[at]):
            looks = looks[~(shared(looks, self._split.held_out[at]) > 0).any(axis=1)]
        if len(looks):
            self._rows.append((self._see(frame, looks), label_of(looks, boxes), part))

    def _looks(self, frame: Frame, regions: np.ndarray, boxes: np.ndarray) -> Iterator[np.ndarray]:
        side = tiling.crop_side_px(frame.width_px, frame.height_px, self._share)
        yield self._some(self._looks_at(regions, frame), REGION_LOOKS)
        yield self._some(tiling.tiles(frame.width_px, frame.height_px, side), TILE_LOOKS)
        shaken = boxes + self._rng.uniform(-JITTER, JITTER, boxes.shape) * np.tile(
            boxes[:, 2:] - boxes[:, :2], 2
        )
        yield self._some(self._looks_at(shaken, frame), BOX_LOOKS)

    def _looks_at(self, regions: np.ndarray, frame: Frame) -> np.ndarray:
        side = tiling.crop_side_px(frame.width_px, frame.height_px, self._share)
        return tiling.covering_crops(regions, frame.width_px, frame.height_px, side)

    def _some(self, looks: np.ndarray, n: int) -> np.ndarray:
        return looks[self._rng.permutation(len(looks))[:n]]

    def _see(self, frame: Frame, looks: np.ndarray) -> np.ndarray:
        source = sliceable(frame)
        return self._features([crop(source, look) for look in looks])

    def _samples(self) -> Samples:
        rows, labels, part = zip(*self._rows, strict=True) if self._rows else ((), (), ())
        return Samples(
            np.concatenate(rows) if rows else np.zeros((0, 0), np.float32),
            np.concatenate(labels) if labels else np.zeros(0, int),
            np.repeat(part, [len(one) for one in labels]) if labels else np.zeros(0, int),
            self._trials,
        )
