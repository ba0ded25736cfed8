"""What a detector or a classifier found on one frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_COORDINATE_PX = 1e6


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Objects on one frame, best score first.

    xyxy_px: (n, 4) float32, left, top, right, bottom in pixels of the source image.
    scores: (n,) float32 in 0..1.
    class_ids: (n,) int32, index into the bundle's labels.
    """

    xyxy_px: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.xyxy_px.shape != (n, 4) or self.class_ids.shape != (n,) or self.scores.shape != (n,):
            raise ValueError(
                f"expected xyxy_px (n, 4), scores (n,), class_ids (n,), got {self.xyxy_px.shape}, "
                f"{self.scores.shape}, {self.class_ids.shape}"
            )

    def __len__(self) -> int:
        return len(self.scores)

    def split(self, score: float) -> tuple[Detections, Detections]:
        """Those that reach a score, and the others."""
        n = int(np.count_nonzero(self.scores >= np.float32(score)))
        xyxy_px, scores, class_ids = self.xyxy_px, self.scores, self.class_ids
        return Detections(xyxy_px[:n], scores[:n], class_ids[:n]), Detections(
            xyxy_px[n:], scores[n:], class_ids[n:]
        )

    def valid(self) -> Detections:
        """The detections whose boxes are finite, within MAX_COORDINATE_PX, and not empty."""
        box = self.xyxy_px
        good = (np.abs(box) <= MAX_COORDINATE_PX).all(axis=1) & (box[:, 2:] > box[:, :2]).all(axis=1)
        return self if good.all() else Detections(box[good], self.scores[good], self.class_ids[good])

    @staticmethod
    def empty() -> Detections:
        """Looked, and nothing was there."""
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """The probabilities of all classes for one image: scores (k,) float32 that sum to 1."""

    scores: np.ndarray

    def top(self, n: int = 5) -> list[tuple[int, float]]:
        """The n best (class_id, score), best first."""
        order = np.argsort(self.scores)[::-1][:n]
        return [(int(i), float(self.scores[i])) for i in order]
