"""Image classifier: preprocessing, inference session, head, a score for each class."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

import numpy as np

from edge_vision.backends.base import Session
from edge_vision.bundles.store import Bundle
from edge_vision.core.detections import Classification, StageTiming
from edge_vision.core.frame import ENCODINGS, Frame
from edge_vision.core.model_spec import InputSpec
from edge_vision.core.preprocess import Preprocessor
from edge_vision.detect.detector import black_frame, check_input
from edge_vision.detect.heads import ClassificationHead, Head, make_head
from edge_vision.errors import HeadError

MAX_BATCH = 16
"""On one core, EfficientNet-Lite0 at 96x96 takes 2.3 ms per image, in a batch of four 1.5 ms."""


class Classifier:
    """Classifies frames or regions of them. Called by one thread at a time.

    supports_batches: the graph has a dynamic batch size, so regions are classified together.
    """

    def __init__(self, input_spec: InputSpec, head: Head, session: Session) -> None:
        """Raises BundleError if the graph takes another input, HeadError for a head of another task."""
        check_input(input_spec, session)
        if not isinstance(head, ClassificationHead):
            raise HeadError(f"a classifier needs a head for task 'classify', got one for '{head.task}'")
        self.input_spec = input_spec
        self.session = session
        self.supports_batches = session.inputs[0].shape[0] is None
        self._head = head
        self._preprocessor = Preprocessor(input_spec)

    @classmethod
    def from_bundle(cls, bundle: Bundle, session: Session) -> Classifier:
        """The classifier that a bundle describes. Raises BundleError, HeadError."""
        manifest = bundle.manifest
        head = make_head(manifest.head, manifest.input, session.outputs, len(bundle.labels))
        return cls(manifest.input, head, session)

    def classify(self, frame: Frame) -> Classification:
        """Classify one frame. Raises ImageError, BackendError, HeadError."""
        started = perf_counter()
        input_tensor, _ = self._preprocessor.prepare(frame)
        prepared = perf_counter()
        outputs = self.session.run({self.input_spec.name: input_tensor})
        inferred = perf_counter()
        scores = self._head.decode(outputs)
        return Classification(scores, StageTiming.between(started, prepared, inferred, perf_counter()))

    def classify_regions(self, frame: Frame, xyxy_px: np.ndarray) -> list[Classification]:
        """Classify regions of a frame: in batches if the graph supports them, one by one if not.

        xyxy_px: (n, 4) in source pixels; a region is clipped to the image and at least one pixel large.
        Raises as `classify`.
        """
        boxes = np.asarray(xyxy_px).reshape(-1, 4)
        source = sliceable(frame) if len(boxes) else frame
        if not self.supports_batches:
            return [self.classify(crop(source, box)) for box in boxes]
        found: list[Classification] = []
        for first in range(0, len(boxes), MAX_BATCH):
            found += self._classify_batch([crop(source, box) for box in boxes[first : first + MAX_BATCH]])
        return found

    def _classify_batch(self, parts: list[Frame]) -> list[Classification]:
        started = perf_counter()
        # The preprocessor reuses its tensor for the next image.
        batch = np.concatenate([self._preprocessor.prepare(part)[0].copy() for part in parts])
        prepared = perf_counter()
        outputs = self.session.run({self.input_spec.name: batch})
        inferred = perf_counter()
        scores = self._head.decode_batch(outputs, len(parts))
        timing = StageTiming.between(started, prepared, inferred, perf_counter())
        return [Classification(row, timing) for row in scores]

    def warm_up(self, n: int = 2) -> None:
        """Run n times on a black image: the first runs allocate memory and select kernels."""
        for _ in range(n):
            self.classify(black_frame(self.input_spec))


def warm_classifier(bundle: Bundle, session: Session) -> Classifier:
    """A classifier after its first runs. Raises as `Classifier.from_bundle` and `warm_up`."""
    classifier = Classifier.from_bundle(bundle, session)
    classifier.warm_up()
    return classifier


def sliceable(frame: Frame) -> Frame:
    """The frame, converted if necessary so that slices of its array are images."""
    encoding = ENCODINGS[frame.encoding]
    if encoding.rows == 1.0 and encoding.plane is None and not encoding.bayer:
        return frame
    return replace(frame, image=frame.bgr(), encoding="bgr8", origin=None)


def crop(frame: Frame, xyxy_px: np.ndarray) -> Frame:
    """A view of a sliceable frame: all pixels that the box touches."""
    left, right = _span(xyxy_px[0], xyxy_px[2], frame.width_px)
    top, bottom = _span(xyxy_px[1], xyxy_px[3], frame.height_px)
    return replace(frame, image=frame.image[top:bottom, left:right], origin=None)


def _span(first: float, last: float, limit: int) -> tuple[int, int]:
    start = min(max(int(np.floor(first)), 0), limit - 1)
    return start, min(max(int(np.ceil(last)), start + 1), limit)
