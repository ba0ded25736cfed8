"""Keeps candidates in a folder: quota, duplicates, faces, size. Its caller is one thread of low priority."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.dataset.faces import FaceBlur
from edge_vision.dataset.folder import DatasetFolder, picture_name, utc_text
from edge_vision.dataset.picture import MAX_BOXES, Picture, boxes_of, label_of
from edge_vision.dataset.picture_hash import KnownPictures, difference_hash
from edge_vision.dataset.selection import NO_CLASS, RANDOM, DailyQuota

COCO_PERIOD_S = 30.0
"""The annotations follow the pictures within this time."""
_QUALITY = 92
_CROP_MARGIN = 0.25
LOW_SCORE = 0.05
"""Proposals below this help no reviewer."""


@dataclass(frozen=True, slots=True)
class ProposingModel:
    """The model that proposes. name: with its version; labels: of its class ids."""

    name: str = ""
    sha256: str = ""
    labels: tuple[str, ...] = ()
    threshold: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class CandidateFrame:
    """A frame that may be kept. cause: the detections that it is kept for, the first one first; found,
    low_score: the proposals; other: of the other model of a disagreement. inferred: False if they are
    predicted."""

    frame: Frame
    reason: str
    model: ProposingModel
    cause: Detections = field(default_factory=Detections.empty)
    found: Detections = field(default_factory=Detections.empty)
    low_score: Detections | None = None
    other: Detections = field(default_factory=Detections.empty)
    inferred: bool = True

    @property
    def classes(self) -> tuple[str, ...]:
        """Of the cause; NO_CLASS without one."""
        names = (label_of(int(one), self.model.labels) for one in self.cause.class_ids)
        return tuple(dict.fromkeys(names)) or (NO_CLASS,)

    @property
    def proposals(self) -> Detections:
        """The detections and the low-score ones."""
        parts = Detections.joined([self.found, self.low_score] if self.low_score else [self.found])
        plain = replace(parts, shapes=None).valid()
        return plain.select(plain.scores >= LOW_SCORE).select(slice(MAX_BOXES))


@dataclass(frozen=True, slots=True)
class CollectorConfig:
    """Settings of the collector. Each is a parameter of its node, described there. camera: its namespace."""

    camera: str = ""
    daily_per_class: int = 20
    max_mb: float = 500.0
    blur_faces: bool = False
    face_model: str = ""


class Collector:
    """Adds pictures to a folder, of which it is the only collector. `config` may be replaced at any time."""

    def __init__(
        self,
        folder: Path,
        config: CollectorConfig,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        """Raises DatasetError if the folder is not ours or has another collector."""
        self.config, self._now = config, now
        self._faces = FaceBlur(config.face_model) if config.blur_faces else None
        self.folder = DatasetFolder.create(folder)
        self._open = ExitStack()
        self._open.enter_context(self.folder.collecting())
        self.counts: Counter[str] = Counter()
        self._known, damaged = KnownPictures(), []  # type: ignore[var-annotated]
        pictures = list(self.folder.pictures(damaged))
        self.damaged: tuple[str, ...] = tuple(damaged)
        self._quota = DailyQuota((one.day, one.reason, one.classes) for one in pictures)
        for one in pictures:
            self._known.add(one.reason, one.picture_hash, one.crop_hash)
        self.pictures, self.bytes = len(pictures), self.folder.size_bytes()
        self._labels: tuple[str, ...] = ()
        self._written_s, self._stale = time.monotonic(), True

    def wants(self, reason: str, classes: tuple[str, ...]) -> bool:
        """Whether the quota leaves room. Any thread; quick."""
        return bool(self._quota.open_classes(self._today(), reason, classes, self.config.daily_per_class))

    def _today(self) -> str:
        return utc_text(self._now())[:10]

    def keep(self, candidate: CandidateFrame) -> Picture | None:
        """Add a picture; None if it is not kept, which `counts` has. Raises OSError and ImageError."""
        now, reason = self._now(), candidate.reason
        limit = self.config.daily_per_class
        classes = self._quota.open_classes(utc_text(now)[:10], reason, candidate.classes, limit)
        if not classes:
            self.counts["quota"] += 1
            return None
        image = candidate.frame.bgr()
        hashes = difference_hash(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)), _crop_hash(image, candidate.cause)
        # Repeats belong to a baseline: with a fixed camera all its pictures are similar.
        if reason != RANDOM and self._known.contains(reason, *hashes):
            self.counts["duplicate"] += 1
            return None
        image = self._covered(image, candidate)
        jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
        if not self._has_room(len(jpeg)):
            self.counts["full"] += 1
            return None
        if candidate.model.labels != self._labels:
            self.folder.add_labels(candidate.model.labels)
            self._labels = candidate.model.labels
        picture = self.folder.add(self._picture(candidate, now, image, hashes, classes), jpeg)
        self._quota.add(picture.day, reason, classes)
        self._known.add(reason, *hashes)
        self.counts[reason] += 1
        self.pictures, self._stale = self.pictures + 1, True
        self.bytes += self.folder.bytes_of(picture.name)
        return picture

    def _picture(
        self,
        candidate: CandidateFrame,
        now: datetime,
        image: np.ndarray,
        hashes: tuple[int, int],
        classes: tuple[str, ...],
    ) -> Picture:
        frame, model = candidate.frame, candidate.model
        height, width = image.shape[:2]
        return Picture(
            picture_name(now, self.config.camera, candidate.reason),
            width,
            height,
            frame.stamp_ns,
            frame.frame_id,
            self.config.camera,
            utc_text(now),
            candidate.reason,
            classes,
            model.name,
            model.sha256,
            round(model.threshold, 4),
            candidate.inferred,
            self._faces is not None,
            *hashes,
            boxes_of(candidate.proposals, model.labels),
            boxes_of(replace(candidate.other, shapes=None).valid().select(slice(MAX_BOXES)), model.labels),
        )

    def _covered(self, image: np.ndarray, candidate: CandidateFrame) -> np.ndarray:
        if self._faces is None:
            return image
        both = Detections.joined([candidate.proposals, replace(candidate.other, shapes=None)])
        names = [label_of(int(one), candidate.model.labels) for one in both.class_ids]
        covered, areas = self._faces.covered(image, both.xyxy_px, names)
        self.counts["covered_faces"] += areas
        return covered

    def _has_room(self, more_bytes: int) -> bool:
        limit = int(self.config.max_mb * 1e6)
        if self.bytes + more_bytes > limit:
            removed, self.bytes = self.folder.make_room(limit)
            self.pictures -= removed
            self.counts["removed"] += removed
        return self.bytes + more_bytes <= limit

    @property
    def due(self) -> bool:
        """Whether to write the annotations: pictures have been added, and some time has passed."""
        return self._stale and time.monotonic() - self._written_s >= COCO_PERIOD_S

    def write(self) -> None:
        """Write the annotations. Raises OSError."""
        self._written_s, self._stale = time.monotonic(), False
        self.folder.write_coco()

    def close(self) -> None:
        """Write the annotations, and leave the folder to another collector. Raises OSError."""
        with self._open:
            if self._stale:
                self.write()

    @property
    def face_detector(self) -> str | None:
        """None if faces are not covered; see `FaceBlur.detector`."""
        return self._faces.detector if self._faces else None


def _crop_hash(image: np.ndarray, cause: Detections) -> int:
    """The hash of the first object of the cause with its surroundings, 0 without one."""
    if not len(cause):
        return 0
    left, top, right, bottom = (float(one) for one in cause.xyxy_px[0])
    x, y = _CROP_MARGIN * (right - left), _CROP_MARGIN * (bottom - top)
    height, width = image.shape[:2]
    columns = slice(*(int(np.clip(one, 0, width)) for one in (left - x, right + x)))
    rows = slice(*(int(np.clip(one, 0, height)) for one in (top - y, bottom + y)))
    crop = image[rows, columns]
    return difference_hash(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)) if crop.size else 0
