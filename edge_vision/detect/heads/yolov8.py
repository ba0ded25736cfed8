"""Head of YOLOv8, YOLOv9, YOLO11 and YOLO12: no objectness, one column per candidate.

Source: github.com/ultralytics/ultralytics, `ultralytics/nn/modules/head.py` (Detect, which decodes distances
and distributions within the graph) and `ultralytics/utils/ops.py` (non_max_suppression with one class per
candidate).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_vision.core.geometry.boxes import Overlaps, nms
from edge_vision.core.model_spec import Thresholds
from edge_vision.detect.heads.base import ModelBoxes
from edge_vision.detect.heads.decoding import at_least, xyxy_of_centres
from edge_vision.detect.heads.extra import ExtraValuesHead


class YoloV8Head(ExtraValuesHead):
    """Role: columns (1, 4 + classes, n), each centre x, centre y, width, height, class scores; or rows, the
    same transposed, (1, n, 4 + classes).

    The scores are activated by the graph. Option: box_unit, px (of the input tensor) or relative (0 to 1, as
    TFLite exports have).
    """

    def _find_rows(self, n_extra: int) -> None:
        self._has_rows = "rows" in self._spec.outputs
        self._end = 4 + self._n_labels
        length = self._end + n_extra
        role, shape = ("rows", (1, "n", length)) if self._has_rows else ("columns", (1, length, "n"))
        self._output = self.output(role, shape)

    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
        """Each candidate has its best class only. Raises HeadError."""
        columns = self._columns(outputs)
        passed = self._candidates(columns[4 : self._end], thresholds.score_threshold)
        scores = columns[4 : self._end, passed]
        self._output.check_scores(columns[4 : self._end], candidates=scores)
        best = scores.max(axis=0, initial=0.0)
        boxes = columns[:4, passed].T * self._scale
        extra = columns[self._end :, passed].T if len(columns) > self._end else None
        return self._objects(boxes, best, scores.argmax(axis=0), thresholds, extra)

    def _corners(self, boxes: np.ndarray) -> np.ndarray:
        return xyxy_of_centres(boxes)

    def _keep(
        self,
        boxes: np.ndarray,
        scores: np.ndarray,
        class_ids: np.ndarray,
        thresholds: Thresholds,
        overlap_test: Overlaps | None = None,
    ) -> np.ndarray:
        limits = thresholds.iou_threshold, thresholds.max_detections
        return nms(boxes, scores, class_ids, *limits, overlap_test)

    def highest_score(self, outputs: Mapping[str, np.ndarray]) -> float | None:
        scores = self._columns(outputs)[4 : self._end]
        return float(scores.max()) if scores.size else None

    def _candidates(self, scores: np.ndarray, threshold: float) -> np.ndarray:
        """Indices of the columns of (classes, n) scores with one that reaches the threshold, in order."""
        if self._has_rows:  # Ten times faster on rows than the maximum of each.
            return np.unique(at_least(scores.T, threshold) // len(scores))
        return at_least(scores.max(axis=0), threshold)

    def _columns(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """(4 + classes + extra, n), a view of the output."""
        values = self._output.read(outputs)[0]
        return values.T if self._has_rows else values
