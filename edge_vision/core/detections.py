"""Results of detectors and classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_vision.core.object_shapes import ObjectShapes, joined

MAX_COORDINATE_PX = 1e6


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Objects on one frame, sorted by descending score.

    xyxy_px: (n, 4) float32, left, top, right, bottom in pixels of the source image.
    scores: (n,) float32 in 0..1.
    class_ids: (n,) int32, index into the bundle's labels.
    shapes: masks, oriented boxes or key points of the same objects; None if the model reports none.
    """

    xyxy_px: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray
    shapes: ObjectShapes | None = None

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.xyxy_px.shape != (n, 4) or self.class_ids.shape != (n,) or self.scores.shape != (n,):
            raise ValueError(
                f"expected xyxy_px (n, 4), scores (n,), class_ids (n,), got {self.xyxy_px.shape}, "
                f"{self.scores.shape}, {self.class_ids.shape}"
            )
        if self.shapes is not None and len(self.shapes.rows) != n:
            raise ValueError(f"expected shapes of {n} objects, got {len(self.shapes.rows)}")

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, which: np.ndarray | slice) -> Detections:
        """The subset given by a mask, indices or a slice."""
        shapes = None if self.shapes is None else self.shapes.select(which)
        return Detections(self.xyxy_px[which], self.scores[which], self.class_ids[which], shapes)

    def split(self, score_threshold: float) -> tuple[Detections, Detections]:
        """The detections that reach the threshold, and those below it."""
        n = int(np.count_nonzero(self.scores >= np.float32(score_threshold)))
        return self.select(slice(n)), self.select(slice(n, None))

    def valid(self) -> Detections:
        """The detections of finite score whose boxes are finite, within MAX_COORDINATE_PX, and not empty."""
        box, known = self.xyxy_px, np.isfinite(self.scores)
        valid = known & (np.abs(box) <= MAX_COORDINATE_PX).all(axis=1) & (box[:, 2:] > box[:, :2]).all(axis=1)
        return self if valid.all() else self.select(valid)

    @staticmethod
    def joined(parts: Sequence[Detections]) -> Detections:
        """All of these, in this order. With shapes if each part that is not empty has them."""
        parts = [Detections.empty(), *parts]
        return Detections(
            np.concatenate([one.xyxy_px for one in parts]),
            np.concatenate([one.scores for one in parts]),
            np.concatenate([one.class_ids for one in parts]),
            joined([one.shapes for one in parts if len(one) or one.shapes is not None]),
        )

    @staticmethod
    def empty() -> Detections:
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))


@dataclass(frozen=True, slots=True)
class StageTiming:
    """Duration of each stage of one inference, or the sum over several."""

    preprocess_ms: float = 0.0
    inference_ms: float = 0.0
    postprocess_ms: float = 0.0

    @property
    def total_ms(self) -> float:
        return self.preprocess_ms + self.inference_ms + self.postprocess_ms

    def __add__(self, other: StageTiming) -> StageTiming:
        return StageTiming(
            self.preprocess_ms + other.preprocess_ms,
            self.inference_ms + other.inference_ms,
            self.postprocess_ms + other.postprocess_ms,
        )

    @staticmethod
    def between(started: float, prepared: float, inferred: float, ended: float) -> StageTiming:
        """From four readings of perf_counter, in seconds."""
        return StageTiming((prepared - started) * 1e3, (inferred - prepared) * 1e3, (ended - inferred) * 1e3)


NO_TIMING = StageTiming()


@dataclass(frozen=True, slots=True, eq=False)
class DetectionResult:
    """Result of one detection pass, or of all passes on one frame.

    top_score: the highest score, even if below the threshold; None if the head does not report it.
    low_score: detections below the threshold; None if not requested, or not available. mask_error: why there
    are no masks, although they were requested.
    """

    detections: Detections
    timing: StageTiming = NO_TIMING
    top_score: float | None = None
    low_score: Detections | None = None
    mask_error: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """Probabilities of all classes for one image: scores (k,) float32, sum 1. timing: of its whole batch."""

    scores: np.ndarray
    timing: StageTiming = NO_TIMING
