"""Shared by the tests of collected pictures: frames, candidates, folders with pictures."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import cv2
import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.dataset.collector import CandidateFrame, Collector, CollectorConfig, ProposingModel
from edge_vision.dataset.folder import DatasetFolder
from edge_vision.dataset.selection import LOW_MARGIN

NOON = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)
LABELS = ("person", "car", "dog")
MODEL = ProposingModel("tiny 1", "ab" * 32, LABELS, 0.5)


def picture(seed: int, width_px: int = 96, height_px: int = 64) -> np.ndarray:
    """A (h, w, 3) uint8 picture that resembles no other one."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 256, (8, 9, 3)).astype(np.uint8)
    return cv2.resize(cells, (width_px, height_px), interpolation=cv2.INTER_NEAREST)


def frame(seed: int, **size: int) -> Frame:
    return Frame(picture(seed, **size), 1_000_000_000 + seed, "camera", "bgr8", seed + 1)


def detections(*boxes: tuple[float, float, float, float, float, int]) -> Detections:
    """boxes: left, top, right, bottom, score, class id."""
    rows = np.array(boxes, np.float32).reshape(-1, 6)
    return Detections(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int32))


BOX = (10.0, 8.0, 40.0, 50.0)


def candidate(seed: int, reason: str = LOW_MARGIN, class_id: int = 0, score: float = 0.55) -> CandidateFrame:
    found = detections((*BOX, score, class_id))
    return CandidateFrame(frame(seed), reason, MODEL, found, found)


class Clock:
    """Advances by a second with each reading."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def collect(folder: Path, count: int, **config: object) -> DatasetFolder:
    """A folder with so many different pictures, closed."""
    collector = Collector(folder, CollectorConfig(daily_per_class=10_000, **config), Clock())  # type: ignore[arg-type]
    for seed in range(count):
        assert collector.keep(candidate(seed)) is not None
    collector.close()
    return collector.folder
