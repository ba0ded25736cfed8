"""Head of YOLOv8, YOLOv9, YOLO11 and YOLO12: no objectness, one column per candidate.

Source: github.com/ultralytics/ultralytics, `ultralytics/nn/modules/head.py` (Detect, which decodes distances
and distributions within the graph) and `ultralytics/utils/ops.py` (non_max_suppression with one class per
candidate).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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

    def __init__(
        self, spec: HeadSpec, input_spec: InputSpec, outputs: Sequence[TensorSpec], n_labels: int
    ) -> None:
        options = read_options(spec, {"box_unit": "px"})
        self._scale = scale_to_px(choice_option(spec, "box_unit", options["box_unit"], BOX_UNITS), input_spec)
        self._has_rows = "rows" in spec.outputs
        role, shape = (
            ("rows", (1, "n", 4 + n_labels)) if self._has_rows else ("columns", (1, 4 + n_labels, "n"))
        )
        self._output = OutputReader.find(spec, role, outputs, shape)

    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
        """Each candidate has its best class only. Raises HeadError."""
        columns = self._columns(outputs)
        passed = self._candidates(columns[4:], thresholds.score_threshold)
        scores = columns[4:, passed]
        self._output.check_scores(columns[4:], candidates=scores)
        best = scores.max(axis=0, initial=0.0)
        xyxy = xyxy_of_centres(columns[:4, passed].T * self._scale)
        return ModelBoxes.suppressed(xyxy, best, scores.argmax(axis=0), thresholds)

    def highest_score(self, outputs: Mapping[str, np.ndarray]) -> float | None:
        scores = self._columns(outputs)[4:]
        return float(scores.max()) if scores.size else None

    def _candidates(self, scores: np.ndarray, threshold: float) -> np.ndarray:
        """Indices of the columns of (classes, n) scores with one that reaches the threshold, in order."""
        if self._has_rows:  # Ten times faster on rows than the maximum of each.
            return np.unique(at_least(scores.T, threshold) // len(scores))
        return at_least(scores.max(axis=0), threshold)

    def _columns(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """(4 + classes, n), a view of the output."""
        values = self._output.read(outputs)[0]
        return values.T if self._has_rows else values
