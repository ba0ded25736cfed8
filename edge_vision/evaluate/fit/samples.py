"""Labelled crops: those that a cascade would classify, whether each shows a wanted object, and features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edge_vision.cascade import tiling
from edge_vision.core.frame import Frame
from edge_vision.detect.classifier import crop, sliceable
from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.fit.splits import CALIBRATE, NEITHER, Split
from edge_vision.evaluate.gate.recorded_gate import SEED
from edge_vision.evaluate.reference.detector import Reference, frame_of
from edge_vision.gate.frame_gate import FrameGate

WANTED, NOTHING, AMBIGUOUS = 1, 0, -1
MIN_OVERLAP = 0.5
"""A crop shows an object if it contains this share of its box, or the box covers this share of the crop."""
SLIGHT_OVERLAP = 0.1
"""A crop that contains less of every box shows nothing; between the two it is ambiguous."""
MAX_REGION_CROPS, MAX_TILE_CROPS, MAX_BOX_CROPS = 6, 3, 3
"""Limits per frame: crops of the gate's regions, of random tiles, and of the teacher's boxes."""
JITTER = 0.15
"""The sides of the teacher's boxes are moved by up to this share, as the gate's regions are less exact."""
MAX_FRAMES = 1500

Features = Callable[[list[Frame]], np.ndarray]
"""Crops -> (n, k) float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Crops of one clip. features: (n, k) float32. labels: (n,) 1, 0 or -1. part: (n,) as in `Split`.

    event_features: (m, k) features of the crops of each calibration event.
    """

    features: np.ndarray
    labels: np.ndarray
    part: np.ndarray
    event_features: list[np.ndarray]

    @staticmethod
    def joined(several: list[Samples]) -> Samples:
        """The samples of several clips."""
        return Samples(
            np.concatenate([one.features for one in several]),
            np.concatenate([one.labels for one in several]),
            np.concatenate([one.part for one in several]),
            [rows for one in several for rows in one.event_features],
        )


def label_of(crops: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(n,) WANTED, NOTHING or AMBIGUOUS for crops (n, 4), by the wanted boxes (m, 4)."""
    if not len(boxes):
        return np.full(len(crops), NOTHING)
    both = intersection_areas(crops, boxes)
    of_box = (both / np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1e-9)).max(axis=1)
    of_crop = (both / np.maximum(np.prod(crops[:, 2:] - crops[:, :2], axis=1), 1e-9)[:, None]).max(axis=1)
    shows = (of_box >= MIN_OVERLAP) | (of_crop >= MIN_OVERLAP)
    return np.where(shows, WANTED, np.where(of_box < SLIGHT_OVERLAP, NOTHING, AMBIGUOUS))


def intersection_areas(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) intersection areas of boxes (n, 4) and (m, 4)."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    return np.asarray(np.prod(np.maximum(sides, 0.0), axis=2))


class Sampler:
    """Takes the crops of one clip. The gate decides on every frame and receives the teacher's detections."""

    def __init__(self, reference: Reference, split: Split, crop_share: float, features: Features) -> None:
        self._reference, self._split, self._share = reference, split, crop_share
        self._features = features
        self._gate = FrameGate(seed=SEED)
        self._rng = np.random.default_rng(SEED)
        self._every = max(1, len(reference) // MAX_FRAMES)
        self._rows: list[tuple[np.ndarray, np.ndarray, int]] = []
        self._event_features: list[np.ndarray] = []

    def take(self, condition: Condition, on_frame: Callable[[int], None]) -> Samples:
        """All samples of the clip. on_frame: called with the number of processed frames."""
        for at, scene in enumerate(condition.frames()):
            if at >= len(self._reference):
                break
            self._process(at, frame_of(scene))
            on_frame(at + 1)
        return self._samples()

    def _process(self, at: int, frame: Frame) -> None:
        boxes, part = self._reference.detections[at].xyxy_px, int(self._split.part[at])
        decision = self._gate.decide(frame, frame.stamp_ns)
        if decision.passed:
            self._gate.inferred(frame.stamp_ns, self._reference.detections[at])
        for event in self._split.events:
            if event.frame == at:
                crops = self._covering_crops(event.box[None], frame)
                self._event_features.append(self._features_of(frame, crops))
        if part == NEITHER or at % self._every:
            return
        crops = np.concatenate(list(self._sampled_crops(frame, decision.regions, boxes)))
        if part != CALIBRATE and len(self._split.held_out[at]):
            crops = crops[~(intersection_areas(crops, self._split.held_out[at]) > 0).any(axis=1)]
        if len(crops):
            self._rows.append((self._features_of(frame, crops), label_of(crops, boxes), part))

    def _sampled_crops(self, frame: Frame, regions: np.ndarray, boxes: np.ndarray) -> Iterator[np.ndarray]:
        side = tiling.crop_side_px(frame.width_px, frame.height_px, self._share)
        yield self._random_subset(self._covering_crops(regions, frame), MAX_REGION_CROPS)
        yield self._random_subset(tiling.tiles(frame.width_px, frame.height_px, side), MAX_TILE_CROPS)
        jittered = boxes + self._rng.uniform(-JITTER, JITTER, boxes.shape) * np.tile(
            boxes[:, 2:] - boxes[:, :2], 2
        )
        yield self._random_subset(self._covering_crops(jittered, frame), MAX_BOX_CROPS)

    def _covering_crops(self, regions: np.ndarray, frame: Frame) -> np.ndarray:
        side = tiling.crop_side_px(frame.width_px, frame.height_px, self._share)
        return tiling.covering_crops(regions, frame.width_px, frame.height_px, side)

    def _random_subset(self, crops: np.ndarray, n: int) -> np.ndarray:
        return crops[self._rng.permutation(len(crops))[:n]]

    def _features_of(self, frame: Frame, crops: np.ndarray) -> np.ndarray:
        source = sliceable(frame)
        return self._features([crop(source, box) for box in crops])

    def _samples(self) -> Samples:
        rows, labels, part = zip(*self._rows, strict=True) if self._rows else ((), (), ())
        return Samples(
            np.concatenate(rows) if rows else np.zeros((0, 0), np.float32),
            np.concatenate(labels) if labels else np.zeros(0, int),
            np.repeat(part, [len(one) for one in labels]) if labels else np.zeros(0, int),
            self._event_features,
        )
