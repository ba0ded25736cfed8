"""The reference: what the detector finds on every frame of a condition. All methods are compared with it.

A reference is cached, keyed by everything that it depends on: the frames, the bundle and the library
versions. An interrupted run is resumed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import thread_time

import cv2
import numpy as np

from edge_vision import __version__
from edge_vision.backends import open_session
from edge_vision.backends.base import BackendRequest
from edge_vision.bundles.store import Bundle, cache_dir, load_bundle
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.detect.detector import LOW_SCORE_SHARE, Detector
from edge_vision.evaluate.conditions import Condition, ConditionFrame
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.reference.storage import ObjectBoxes, StoredReference

BUNDLE = "nanodet"
BACKEND = "onnxruntime"
FORMAT = 2
_SAVE_EVERY = 500

StepCallback = Callable[[str], None]
"""Called with the phase after each step of an evaluation; may raise Stopped."""


class Stopped(Exception):
    """The user pressed Ctrl-C. Finished work stays in the cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What the detector found on each frame of a condition, one entry per frame.

    low_score: detections below the threshold, see `Detector`. ground_truth: empty for a real clip.
    detector_cpu_s: median CPU seconds of one inference.
    """

    stamps_ns: np.ndarray
    detections: list[Detections]
    low_score: list[Detections]
    ground_truth: list[ObjectBoxes]
    detector_cpu_s: float
    size_px: tuple[int, int]

    def __len__(self) -> int:
        return len(self.detections)


class ReferenceDetector:
    """The detector of the reference, on one thread; loaded lazily. bundle: its name or folder."""

    def __init__(self, bundle: str = BUNDLE) -> None:
        self.bundle: Bundle = load_bundle(bundle)
        self._detector: Detector | None = None

    def load(self) -> Detector:
        """The detector, loaded and warmed up on the first call. Raises BackendError."""
        if self._detector is None:
            session, _ = open_session(self.bundle, BACKEND, BackendRequest(threads=1), strict=True)
            self._detector = Detector.from_bundle(self.bundle, session)
            self._detector.warm_up()
        return self._detector

    def detect(self, frame: ConditionFrame) -> tuple[Detections, Detections, float]:
        """The detections, the low-score detections and the CPU seconds of the inference.

        Raises BackendError.
        """
        detector = self.load()
        started = thread_time()
        result = detector.detect(frame_of(frame), with_low_score=True)
        cpu_s = thread_time() - started
        assert result.low_score is not None
        return result.detections, result.low_score, cpu_s


def frame_of(frame: ConditionFrame) -> Frame:
    """The frame as the pipeline receives it."""
    return Frame(frame.image, frame.stamp_ns, "camera")


def reference_of(
    condition: Condition, n: int, detector: ReferenceDetector, on_step: StepCallback
) -> Reference:
    """The reference of the first n frames, from the cache as far as it is there.

    on_step: called with "detect" for each inference. Raises EvaluateError if the source has no frame.
    """
    path = cache_path(condition, detector.bundle)
    stored = StoredReference.read(path)
    if len(stored) < n and not stored.complete:
        try:
            _extend(stored, condition, n, detector, on_step, path)
        finally:
            stored.write(path)
    if not len(stored):
        raise EvaluateError(f"expected a video with frames, got none from '{condition.name}'")
    return Reference(
        np.array(stored.stamps_ns[:n], np.int64),
        stored.detections[:n],
        stored.low_score[:n],
        stored.ground_truth[:n],
        float(np.median(stored.cpu_s)),
        stored.size_px,
    )


def _extend(
    stored: StoredReference,
    condition: Condition,
    n: int,
    detector: ReferenceDetector,
    on_step: StepCallback,
    path: Path,
) -> None:
    for scene in islice(condition.frames(), len(stored), n):
        found, low_score, cpu_s = detector.detect(scene)
        stored.stamps_ns.append(scene.stamp_ns)
        stored.detections.append(found)
        stored.low_score.append(low_score)
        stored.ground_truth.append({i: np.array(box, np.float32) for i, box, _ in scene.truth})
        stored.cpu_s.append(cpu_s)
        stored.size_px = (scene.image.shape[1], scene.image.shape[0])
        if len(stored) % _SAVE_EVERY == 0:
            stored.write(path)
        on_step("detect")
    stored.complete = len(stored) < n


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
