"""Head of YOLOv5, and of YOLOv6, YOLOv7 and YOLOX exported with decoded boxes.

Source: github.com/ultralytics/yolov5, `models/yolo.py` (Detect, which decodes the anchors within the graph)
and `utils/general.py` (non_max_suppression with one class per row).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.detect.heads.base import DetectionHead, ModelBoxes, OutputReader, choice_option, read_options
from edge_vision.detect.heads.geometry import BOX_UNITS, scale_to_px, xyxy_of_centres
from edge_vision.detect.heads.scores import at_least, best_classes, highest_of_rows

if TYPE_CHECKING:
    from edge_vision.backends.base import TensorSpec


class YoloV5Head(DetectionHead):
    """Role: rows (1, n, 5 + classes), each centre x, centre y, width, height, objectness, class scores.

    All are activated by the graph. The score is objectness times the best class's score.
    Option: box_unit, px (of the input tensor) or relative (0 to 1, as TFLite exports have).
    """

    def __init__(
        self, spec: HeadSpec, input_spec: InputSpec, outputs: Sequence[TensorSpec], n_labels: int
    ) -> None:
        """Raises HeadError if the options or the outputs do not match."""
        options = read_options(spec, {"box_unit": "px"})
        self._scale = scale_to_px(choice_option(spec, "box_unit", options["box_unit"], BOX_UNITS), input_spec)
        self._rows = OutputReader.find(spec, "rows", outputs, (1, "n", 5 + n_labels))

    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
        """Raises HeadError."""
        rows = self._rows.read(outputs)[0]
        objectness = rows[:, 4]
        # A score never exceeds the objectness, which rules out most rows.
        rows = rows[at_least(objectness, thresholds.score_threshold)]
        self._rows.check_scores(objectness, candidates=rows[:, 4])
        self._rows.check_scores(rows[:, 5:])
        class_ids, scores = best_classes(rows)
        passed = at_least(scores, thresholds.score_threshold)
        xyxy = xyxy_of_centres(rows[passed, :4] * self._scale)
        return ModelBoxes.suppressed(xyxy, scores[passed], class_ids[passed], thresholds)

    def highest_score(self, outputs: Mapping[str, np.ndarray]) -> float | None:
        return highest_of_rows(self._rows.read(outputs)[0])
