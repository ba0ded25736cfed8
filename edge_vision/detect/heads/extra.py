"""Base of heads whose rows may have further values behind the box and the scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from edge_vision.core.geometry.boxes import Overlaps
from edge_vision.core.model_spec import Thresholds
from edge_vision.detect.heads.base import DetectionHead, ModelBoxes, OutputReader
from edge_vision.detect.heads.decoding import BOX_UNITS, scale_to_px


class ExtraValuesHead(DetectionHead):
    """A subclass of boxes defines where they are, one of shapes what the further values are; see `shapes`."""

    defaults: ClassVar[Mapping[str, object]] = {"box_unit": "px"}
    _output: OutputReader

    def set_up(self) -> None:
        self._scale = scale_to_px(self.choice("box_unit", BOX_UNITS), self._input)
        self._find_rows(self._count_extra())

    @abstractmethod
    def _find_rows(self, n_extra: int) -> None:
        """Set `_output`. Raises HeadError."""

    def _count_extra(self) -> int:
        """The number of further values. Raises HeadError."""
        return 0

    @abstractmethod
    def _corners(self, boxes: np.ndarray) -> np.ndarray:
        """(n, 4) boxes in the order of the rows -> (n, 4) xyxy."""

    @abstractmethod
    def _keep(
        self,
        boxes: np.ndarray,
        scores: np.ndarray,
        class_ids: np.ndarray,
        thresholds: Thresholds,
        overlap_test: Overlaps | None = None,
    ) -> np.ndarray:
        """Indices of the candidates to keep, sorted by descending score."""

    def _objects(
        self,
        boxes: np.ndarray,
        scores: np.ndarray,
        class_ids: np.ndarray,
        thresholds: Thresholds,
        extra: np.ndarray | None,
    ) -> ModelBoxes:
        """The kept candidates. boxes: (n, 4) in pixels, in the order of the rows. extra: (n, k)."""
        xyxy = self._corners(boxes)
        keep = self._keep(xyxy, scores, class_ids, thresholds)
        return ModelBoxes.kept(keep, xyxy, scores, class_ids, extra)
