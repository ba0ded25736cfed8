"""A detector: pre-processing, a session, a head, and the boxes in source pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import InputSpec, Thresholds
from edge_vision.core.preprocess import Preprocessor, Transform, input_shape
from edge_vision.detect.heads import DetectionHead, Head, ModelBoxes, make_head
from edge_vision.errors import BundleError, HeadError

if TYPE_CHECKING:
    from edge_vision.backends.base import Session
    from edge_vision.bundles.store import Bundle

LOW_SCORE_SHARE = 0.5
"""What scores this share of the threshold may be an object on the next frame."""


@dataclass(frozen=True, slots=True)
class StageTiming:
    """How long the stages of one call took."""

    preprocess_ms: float = 0.0
    inference_ms: float = 0.0
    postprocess_ms: float = 0.0

    @property
    def total_ms(self) -> float:
        """All stages together."""
        return self.preprocess_ms + self.inference_ms + self.postprocess_ms

    @staticmethod
    def between(started: float, prepared: float, inferred: float, ended: float) -> StageTiming:
        """From four readings of perf_counter, in seconds."""
        return StageTiming((prepared - started) * 1e3, (inferred - prepared) * 1e3, (ended - inferred) * 1e3)


class Detector:
    """Finds objects on frames. `detect` is called by one thread at a time.

    thresholds: may be replaced by any thread at any time; the next call uses them.
    timing: how long the stages of the last call took.
    top_score: the highest score of the last call, below the threshold too; None where the head cannot tell.
    with_low_score: may be replaced as thresholds are. Whether to keep what scored less than the threshold.
    low_score: that of the last call, down to LOW_SCORE_SHARE of the threshold; None without with_low_score.
    """

    def __init__(self, input_spec: InputSpec, head: Head, session: Session, thresholds: Thresholds) -> None:
        """Raises BundleError where the graph takes another input, HeadError for a head of another task."""
        check_input(input_spec, session)
        if not isinstance(head, DetectionHead):
            raise HeadError(f"a detector needs a head for task 'detect', got one for '{head.task}'")
        self.input_spec = input_spec
        self.session = session
        self.thresholds = thresholds
        self.timing = StageTiming()
        self.top_score: float | None = None
        self.with_low_score = False
        self.low_score: Detections | None = None
        self._head = head
        self._preprocessor = Preprocessor(input_spec)

    @classmethod
    def from_bundle(cls, bundle: Bundle, session: Session) -> Detector:
        """A detector as its bundle describes it. Raises BundleError, HeadError."""
        manifest = bundle.manifest
        head = make_head(manifest.head, manifest.input, session.outputs, len(bundle.labels))
        return cls(manifest.input, head, session, manifest.thresholds)

    def detect(self, frame: Frame) -> Detections:
        """Look at one frame. Raises ImageError, BackendError, HeadError."""
        started = perf_counter()
        input_tensor, transform = self._preprocessor.prepare(frame)
        prepared = perf_counter()
        outputs = self.session.run({self.input_spec.name: input_tensor})
        inferred = perf_counter()
        thresholds, with_low_score = self.thresholds, self.with_low_score
        boxes = self._head.decode(outputs, _lowered(thresholds) if with_low_score else thresholds)
        self.top_score = float(boxes.scores[0]) if len(boxes.scores) else self._head.highest_score(outputs)
        detections, self.low_score = on_image(boxes, transform), None
        if with_low_score:
            detections, self.low_score = detections.split(thresholds.score_threshold)
        self.timing = StageTiming.between(started, prepared, inferred, perf_counter())
        return detections

    def warm_up(self, n: int = 2) -> None:
        """Run on a black image n times: the first runs allocate memory and choose kernels."""
        for _ in range(n):
            self.detect(black_frame(self.input_spec))


def _lowered(thresholds: Thresholds) -> Thresholds:
    return replace(thresholds, score_threshold=LOW_SCORE_SHARE * thresholds.score_threshold)


def on_image(found: ModelBoxes, transform: Transform) -> Detections:
    """Boxes in source pixels, clipped to the image; what lies outside it is left out."""
    xyxy_px = transform.to_source(found.xyxy_model)
    inside = (xyxy_px[:, 2:] > xyxy_px[:, :2]).all(axis=1)
    if inside.all():
        return Detections(xyxy_px, found.scores, found.class_ids)
    return Detections(xyxy_px[inside], found.scores[inside], found.class_ids[inside])


def black_frame(spec: InputSpec) -> Frame:
    """A frame of the model's own size with nothing on it."""
    return Frame(np.zeros((spec.height_px, spec.width_px, 3), np.uint8), 0, "", "bgr8")


def check_input(spec: InputSpec, session: Session) -> None:
    """Raise BundleError unless the graph takes one input, as the bundle describes it."""
    expected = (spec.name, input_shape(spec), spec.dtype)
    found = [(tensor.name, tensor.shape, tensor.dtype) for tensor in session.inputs]
    if len(found) == 1:
        name, shape, dtype = found[0]
        same_shape = len(shape) == 4 and all(a in (None, e) for a, e in zip(shape, expected[1], strict=True))
        if name == spec.name and dtype == spec.dtype and same_shape:
            return
    raise BundleError(
        f"the bundle's input is {_described(expected)}, the graph takes "
        f"{'; '.join(_described(tensor) for tensor in found) or 'nothing'}: correct input in bundle.yaml"
    )


def _described(tensor: tuple[str, tuple[int | None, ...], str]) -> str:
    name, shape, dtype = tensor
    return f"'{name}' {list(shape)} {dtype}"
