"""Head of RT-DETR as exported by earlier versions of Ultralytics: boxes and scores in one output.

Source: github.com/ultralytics/ultralytics, `ultralytics/nn/modules/head.py` (RTDETRDecoder) and
`ultralytics/models/rtdetr/predict.py` (postprocess: the best class of each query, boxes relative to the
image).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.detect.heads.base import DetectionHead, ModelBoxes, OutputReader, read_options
from edge_vision.detect.heads.geometry import scale_to_px, xyxy_of_centres
from edge_vision.detect.heads.scores import at_least

if TYPE_CHECKING:
    from edge_vision.backends.base import TensorSpec


class DetrRowsHead(DetectionHead):
    """Role: rows (1, queries, 4 + classes): centre x, centre y, width, height, 0 to 1; scores, 0 to 1.

    No options. iou_threshold has no effect: the graph outputs each object once.
    """

    def __init__(
        self, spec: HeadSpec, input_spec: InputSpec, outputs: Sequence[TensorSpec], n_labels: int
    ) -> None:
        """Raises HeadError if the outputs do not match."""
        read_options(spec, {})
        self._scale = scale_to_px("relative", input_spec)
        self._rows = OutputReader.find(spec, "rows", outputs, (1, "queries", 4 + n_labels))

    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
        """Raises HeadError."""
        rows = self._rows.read(outputs)[0]
        self._rows.check_scores(rows[:, 4:])
        best = rows[:, 4:].max(axis=1)
        passed = at_least(best, thresholds.score_threshold)
        class_ids = rows[passed, 4:].argmax(axis=1)
        return ModelBoxes.best(
            xyxy_of_centres(rows[passed, :4]) * self._scale, best[passed], class_ids, thresholds
        )

    def highest_score(self, outputs: Mapping[str, np.ndarray]) -> float | None:
        scores = self._rows.read(outputs)[0, :, 4:]
        return float(scores.max()) if scores.size else None
