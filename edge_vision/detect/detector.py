"""Object detector: preprocessing, inference session, head, boxes in source pixels."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import replace
from time import perf_counter

import numpy as np

from edge_vision.backends.base import Session
from edge_vision.bundles.store import Bundle
from edge_vision.core.detections import DetectionResult, Detections, StageTiming
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import InputSpec, Thresholds
from edge_vision.core.object_shapes import Masks
from edge_vision.core.preprocess import Preprocessor, Transform
from edge_vision.core.running_clock import running_s
from edge_vision.detect.heads import DetectionHead, Head, ModelBoxes, make_head
from edge_vision.errors import BundleError, HeadError

LOW_SCORE_SHARE = 0.5
"""Low-score detections reach at least this share of the score threshold (ByteTrack, Y. Zhang et al. 2022)."""


class Detector:
    """Detects objects on frames. `detect` is called by one thread at a time.

    thresholds: any thread may replace them at any time; the next call uses the new ones.
    """

    def __init__(self, input_spec: InputSpec, head: Head, session: Session, thresholds: Thresholds) -> None:
        """Raises BundleError if the graph takes another input, HeadError for a head of another task."""
        check_input(input_spec, session)
        if not isinstance(head, DetectionHead):
            raise HeadError(f"a detector needs a head for task 'detect', got one for '{head.task}'")
        self.input_spec = input_spec
        self.session = session
        self.thresholds = thresholds
        self._head = head
        self._preprocessor = Preprocessor(input_spec)
        self.run_began_s = math.inf
        """When the backend's current run began, by `running_s`; infinity if there is none."""

    @classmethod
    def from_bundle(cls, bundle: Bundle, session: Session) -> Detector:
        """The detector that a bundle describes. Raises BundleError, HeadError."""
        manifest = bundle.manifest
        head = make_head(manifest.head, manifest.input, session.outputs, len(bundle.labels))
        return cls(manifest.input, head, session, manifest.thresholds)

    def detect(self, frame: Frame, with_low_score: bool = False, with_masks: bool = False) -> DetectionResult:
        """Run one detection pass. Raises ImageError, BackendError, HeadError.

        with_low_score: also return the detections down to LOW_SCORE_SHARE of the score threshold, which have
        no shapes. with_masks: if the shapes are masks, return them, too, or why they are missing.
        """
        started = perf_counter()
        input_tensor, transform = self._preprocessor.prepare(frame)
        prepared = perf_counter()
        self.run_began_s = running_s()
        try:
            outputs = self.session.run({self.input_spec.name: input_tensor})
        finally:
            self.run_began_s = math.inf
        inferred = perf_counter()
        thresholds = self.thresholds
        boxes = self._head.decode(outputs, _lowered(thresholds) if with_low_score else thresholds)
        top_score = float(boxes.scores[0]) if len(boxes.scores) else self._head.highest_score(outputs)
        detections, low_score = to_source_pixels(boxes, transform), None
        if with_low_score:
            detections, low_score = detections.split(thresholds.score_threshold)
        mask_error = ""
        if boxes.extra is not None and (with_masks or self.shape_kind != Masks.kind):
            inside = boxes.select(_inside(transform.to_source(boxes.xyxy_model)))
            try:
                shapes = self._head.shapes(outputs, inside.select(slice(len(detections))), transform)
                detections = replace(detections, shapes=shapes)
            except HeadError as error:
                if self.shape_kind != Masks.kind:
                    raise
                mask_error = str(error)
        timing = StageTiming.between(started, prepared, inferred, perf_counter())
        return DetectionResult(detections, timing, top_score, low_score, mask_error)

    def twin(self) -> Detector:
        """A detector on the same session with thresholds, counts and image buffers of its own."""
        return Detector(self.input_spec, copy(self._head), self.session, self.thresholds)

    @property
    def shape_kind(self) -> str:
        """`ObjectShapes.kind` of its detections' shapes, "" for boxes alone."""
        return self._head.shape_kind

    @property
    def unlabelled(self) -> int:
        """The number of objects dropped since the warm-up because the bundle has no label for their class."""
        return self._head.unlabelled

    def warm_up(self, n: int = 2) -> None:
        """Run n times on a black image: the first runs allocate memory and select kernels. Raises as
        `detect`, and HeadError if masks cannot be decoded."""
        for _ in range(n):
            if error := self.detect(black_frame(self.input_spec), with_masks=True).mask_error:
                raise HeadError(error)
        self._head.unlabelled = 0


def _lowered(thresholds: Thresholds) -> Thresholds:
    return replace(thresholds, score_threshold=LOW_SCORE_SHARE * thresholds.score_threshold)


def to_source_pixels(found: ModelBoxes, transform: Transform) -> Detections:
    """Boxes in source pixels, clipped to the image; boxes outside it are dropped."""
    xyxy_px = transform.to_source(found.xyxy_model)
    inside = _inside(xyxy_px)
    detections = Detections(xyxy_px, found.scores, found.class_ids)
    return detections if inside.all() else detections.select(inside)


def _inside(xyxy_px: np.ndarray) -> np.ndarray:
    """(n,) bool: the clipped boxes that are not empty."""
    return np.asarray((xyxy_px[:, 2:] > xyxy_px[:, :2]).all(axis=1))


def black_frame(spec: InputSpec) -> Frame:
    """A black frame of the model's input size."""
    return Frame(np.zeros((spec.height_px, spec.width_px, 3), np.uint8), 0, "", "bgr8")


def check_input(spec: InputSpec, session: Session) -> None:
    """Raise BundleError unless the graph takes exactly the input that the bundle describes."""
    expected = (spec.name, spec.shape, spec.dtype)
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
