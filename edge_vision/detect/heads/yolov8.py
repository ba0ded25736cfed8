"""Head of YOLOv8, YOLOv9, YOLO11 and YOLO12: no objectness, one column per candidate.

Source: github.com/ultralytics/ultralytics, `ultralytics/nn/modules/head.py` (Detect, which decodes distances
and distributions within the graph) and `ultralytics/utils/ops.py` (non_max_suppression with one class per
candidate).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from edge_vision.backends.base import TensorSpec
from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.detect.heads.base import DetectionHead, ModelBoxes, OutputReader, choice_option, read_options
from edge_vision.detect.heads.decoding import BOX_UNITS, at_least, scale_to_px, xyxy_of_centres


class YoloV8Head(DetectionHead):
    """Role: columns (1, 4 + classes, n), each centre x, centre y, width, height, class scores; or rows, the
    same transposed, (1, n, 4 + classes).

    The scores are activated by the graph. Option: box_unit, px (of the input tensor) or relative (0 to 1, as
    TFLite exports have).
    """

    defaults: ClassVar[Mapping[str, object]] = {"box_unit": "px"}

    def __init__(
        self, spec: HeadSpec, input_spec: InputSpec, outputs: Sequence[TensorSpec], n_labels: int
    ) -> None:
        options = read_options(spec, self.defaults)
        self._scale = scale_to_px(choice_option(spec, "box_unit", options["box_unit"], BOX_UNITS), input_spec)
        self._has_rows = "rows" in spec.outputs
        self._end = 4 + n_labels
        length = self._end + self._count_extra(spec, options, outputs)
        role, shape = ("rows", (1, "n", length)) if self._has_rows else ("columns", (1, length, "n"))
        self._output = OutputReader.find(spec, role, outputs, shape)

    def _count_extra(
        self, spec: HeadSpec, options: Mapping[str, object], outputs: Sequence[TensorSpec]
    ) -> int:
        """The number of values after the class scores. Raises HeadError."""
        return 0

    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
        """Each candidate has its best class only. Raises HeadError."""
        columns = self._columns(outputs)
        passed = self._candidates(columns[4 : self._end], thresholds.score_threshold)
        scores = columns[4 : self._end, passed]
        self._output.check_scores(columns[4 : self._end], candidates=scores)
        best = scores.max(axis=0, initial=0.0)
        boxes = columns[:4, passed].T * self._scale
        extra = columns[self._end :, passed].T if len(columns) > self._end else None
        return self._suppressed(boxes, best, scores.argmax(axis=0), thresholds, extra)

    def _suppressed(
        self,
        boxes: np.ndarray,
        scores: np.ndarray,
        class_ids: np.ndarray,
        thresholds: Thresholds,
        extra: np.ndarray | None,
    ) -> ModelBoxes:
        """NMS of candidates, boxes being (n, 4) centres and sizes, extra (n, k) further values."""
        return ModelBoxes.suppressed(xyxy_of_centres(boxes), scores, class_ids, thresholds, extra)

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
