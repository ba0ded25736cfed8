"""What the detector finds on every frame of a condition: the measure of all methods. Kept on disk.

A reference is used again while all is the same that it depends on: the pictures, the bundle, the versions.
One that was cut short is gone on with.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import thread_time
from typing import IO

import cv2
import numpy as np

from edge_vision import __version__
from edge_vision.backends import open_session
from edge_vision.backends.base import BackendRequest
from edge_vision.bundles.store import Bundle, cache_dir, load_bundle
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.detect.detector import LOW_SCORE_SHARE, Detector
from edge_vision.evaluate.conditions import Condition, SceneFrame
from edge_vision.evaluate.errors import EvaluateError

BUNDLE = "ssdlite_mobilenet_v2_coco"
BACKEND = "onnxruntime"
FORMAT = 2
_KEPT_EVERY = 500

TruthBoxes = dict[int, np.ndarray]
FrameEvent = Callable[[str], None]


class Stopped(Exception):
    """Somebody pressed Ctrl-C. What was finished is kept."""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What the detector found on each frame of a condition, one entry per frame.

    low_score: detections below the threshold, see `Detector`. truth: object_id -> visible box (4,); empty for
    a real clip. detector_cpu_s: median CPU seconds of one inference.
    """

    stamps_ns: np.ndarray
    found: list[Detections]
    low_score: list[Detections]
    truth: list[TruthBoxes]
    detector_cpu_s: float
    size_px: tuple[int, int]

    def __len__(self) -> int:
        return len(self.found)


class ReferenceDetector:
    """The detector of the reference, loaded when the first frame needs it. One thread."""

    def __init__(self) -> None:
        self.bundle: Bundle = load_bundle(BUNDLE)
        self._detector: Detector | None = None

    def detect(self, frame: SceneFrame) -> tuple[Detections, Detections, float]:
        """What is on a frame, what scored a little less, and the CPU seconds that it took to look.

        Raises BackendError."""
        if self._detector is None:
            session, _ = open_session(self.bundle, BACKEND, BackendRequest(threads=1), strict=True)
            self._detector = Detector.from_bundle(self.bundle, session)
            self._detector.warm_up()
        started = thread_time()
        result = self._detector.detect(frame_of(frame), with_low_score=True)
        cpu_s = thread_time() - started
        assert result.low_score is not None
        return result.detections, result.low_score, cpu_s


def frame_of(scene: SceneFrame) -> Frame:
    """A picture as the pipeline has it."""
    return Frame(scene.image, scene.stamp_ns, "camera")


def reference_of(condition: Condition, n: int, detector: ReferenceDetector, tick: FrameEvent) -> Reference:
    """The reference of the first n frames, from the disk as far as it is there.

    tick is told "detect" for each frame that the detector looks at; it may raise Stopped. Raises
    EvaluateError where the source has no frame.
    """
    path = cache_path(condition, detector.bundle)
    book = _Book.read(path) or _Book()
    if len(book) < n and not book.complete:
        try:
            _go_on(book, condition.frames(), n, detector, tick, path)
        finally:
            book.write(path)
    if not len(book):
        raise EvaluateError(f"expected a video with frames, got none from '{condition.name}'")
    return book.first(n)


def _go_on(
    book: _Book,
    frames: Iterator[SceneFrame],
    n: int,
    detector: ReferenceDetector,
    tick: FrameEvent,
    path: Path,
) -> None:
    for at, scene in enumerate(islice(frames, n)):
        if at < len(book):
            continue
        book.add(scene, *detector.detect(scene))
        if len(book) % _KEPT_EVERY == 0:
            book.write(path)
        tick("detect")
    book.complete = len(book) < n


def cache_path(condition: Condition, bundle: Bundle) -> Path:
    """The file of a condition's reference; its name changes with everything that the reference depends on."""
    import onnxruntime

    versions = (
        FORMAT,
        LOW_SCORE_SHARE,
        __version__,
        cv2.__version__,
        np.__version__,
        onnxruntime.__version__,
    )
    parts = (condition.make().fingerprint(), condition.fps_hz, bundle.sha256, BACKEND, versions)
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    return cache_dir() / "evaluate" / f"{condition.name}-{key}.npz"


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write to a temporary file in the same folder, then rename it: the file is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            write(file)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


class _Book:
    """A reference that grows. complete: the source ended here."""

    def __init__(self) -> None:
        self.stamps_ns: list[int] = []
        self.found: list[Detections] = []
        self.low_score: list[Detections] = []
        self.truth: list[TruthBoxes] = []
        self.cpu_s: list[float] = []
        self.size_px = (0, 0)
        self.complete = False

    def __len__(self) -> int:
        return len(self.found)

    def add(self, scene: SceneFrame, found: Detections, low_score: Detections, cpu_s: float) -> None:
        self.stamps_ns.append(scene.stamp_ns)
        self.found.append(found)
        self.low_score.append(low_score)
        self.truth.append({i: np.array(box, np.float32) for i, box, _ in scene.truth})
        self.cpu_s.append(cpu_s)
        self.size_px = (scene.image.shape[1], scene.image.shape[0])

    def first(self, n: int) -> Reference:
        stamps_ns = np.array(self.stamps_ns[:n], np.int64)
        cpu_s = float(np.median(self.cpu_s))
        return Reference(stamps_ns, self.found[:n], self.low_score[:n], self.truth[:n], cpu_s, self.size_px)

    def write(self, path: Path) -> None:
        ids = [np.array(list(boxes), np.int32) for boxes in self.truth]
        arrays = dict(
            stamps_ns=np.array(self.stamps_ns, np.int64),
            cpu_s=np.array(self.cpu_s),
            size_px=np.array(self.size_px),
            complete=np.array(self.complete),
            **_packed("found", self.found),
            **_packed("low_score", self.low_score),
            truth_counts=np.array([len(boxes) for boxes in self.truth], np.int64),
            truth_ids=_stacked(ids, (0,)),
            truth_px=_stacked([box[None] for boxes in self.truth for box in boxes.values()], (0, 4)),
        )
        replace_file(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: Path) -> _Book | None:
        """The book on disk, None where there is none that can be read."""
        try:
            with np.load(path) as file:
                data = {name: file[name] for name in file.files}
            return cls._from(data)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None

    @classmethod
    def _from(cls, data: dict[str, np.ndarray]) -> _Book:
        book = cls()
        book.stamps_ns, book.cpu_s = data["stamps_ns"].tolist(), data["cpu_s"].tolist()
        book.size_px = (int(data["size_px"][0]), int(data["size_px"][1]))
        book.complete = bool(data["complete"])
        book.found, book.low_score = _unpacked("found", data), _unpacked("low_score", data)
        cuts = np.cumsum(data["truth_counts"])[:-1]
        pairs = zip(np.split(data["truth_ids"], cuts), np.split(data["truth_px"], cuts), strict=True)
        book.truth = [dict(zip(ids.tolist(), boxes, strict=True)) for ids, boxes in pairs]
        return book


def _packed(name: str, found: list[Detections]) -> dict[str, np.ndarray]:
    return {
        f"{name}_counts": np.array([len(one) for one in found], np.int64),
        f"{name}_xyxy_px": _stacked([one.xyxy_px for one in found], (0, 4)),
        f"{name}_scores": _stacked([one.scores for one in found], (0,)),
        f"{name}_class_ids": _stacked([one.class_ids for one in found], (0,)),
    }


def _unpacked(name: str, data: dict[str, np.ndarray]) -> list[Detections]:
    cuts = np.cumsum(data[f"{name}_counts"])[:-1]
    parts = [np.split(data[f"{name}_{part}"], cuts) for part in ("xyxy_px", "scores", "class_ids")]
    return [Detections(*part) for part in zip(*parts, strict=True)]


def _stacked(parts: list[np.ndarray], empty: tuple[int, ...]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(empty, np.float32)
