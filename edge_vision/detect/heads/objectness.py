"""Heads of YOLO models with an objectness: a row's score is its objectness times its best class's score.

Sources: github.com/ultralytics/yolov5, `models/yolo.py` (Detect, which decodes the anchors within the graph)
and `utils/general.py` (non_max_suppression with one class per row); Ge et al., "YOLOX: Exceeding YOLO Series
in 2021" (arXiv 2107.08430), github.com/Megvii-BaseDetection/YOLOX, `yolox/models/yolo_head.py`
(decode_outputs) and `tools/export_onnx.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from edge_vision.core.model_spec import Thresholds
from edge_vision.detect.heads.base import DetectionHead, ModelBoxes, OutputReader
from edge_vision.detect.heads.decoding import (
    BOX_UNITS,
    at_least,
    best_classes,
    capped_exp,
    grid_points,
    highest_of_rows,
    scale_to_px,
    xyxy_of_centres,
)


class _ObjectnessHead(DetectionHead):
    """Rows of four box codes, objectness, class scores; the scores are activated by the graph."""

    _rows: OutputReader

    @abstractmethod
    def _boxes(self, codes: np.ndarray, at: np.ndarray) -> np.ndarray:
        """(n, 4) codes of the rows at (n,) -> (n, 4) boxes in pixels of the input tensor."""

    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
        rows = self._rows.read(outputs)[0]
        # A score never exceeds the objectness, which rules out most rows.
        likely = at_least(rows[:, 4], thresholds.score_threshold)
        self._rows.check_scores(rows[:, 4], candidates=rows[likely, 4])
        self._rows.check_scores(rows[likely, 5:])
        class_ids, scores = best_classes(rows[likely])
        passed = at_least(scores, thresholds.score_threshold)
        at = likely[passed]
        xyxy = self._boxes(rows[at, :4], at)
        return ModelBoxes.suppressed(xyxy, scores[passed], class_ids[passed], thresholds)

    def highest_score(self, outputs: Mapping[str, np.ndarray]) -> float | None:
        return highest_of_rows(self._rows.read(outputs)[0])


class YoloV5Head(_ObjectnessHead):
    """YOLOv5, and YOLOv6, YOLOv7 and YOLOX exported with decoded boxes.

    Role: rows (1, n, 5 + classes), each centre x, centre y, width, height, objectness, class scores.
    Option: box_unit, px (of the input tensor) or relative (0 to 1, as TFLite exports have).
    """

    defaults: ClassVar[Mapping[str, object]] = {"box_unit": "px"}

    def set_up(self) -> None:
        self._scale = scale_to_px(self.choice("box_unit", BOX_UNITS), self._input)
        self._rows = self.output("rows", (1, "n", 5 + self._n_labels))

    def _boxes(self, codes: np.ndarray, at: np.ndarray) -> np.ndarray:
        return xyxy_of_centres(codes * self._scale)


class YoloxHead(_ObjectnessHead):
    """YOLOX as its export script writes it: boxes in grid cells.

    Role: rows (1, n, 5 + classes): centre offset x, y and logarithm of width, height, in cells, objectness,
    class scores. n is the cells of all feature maps. Option: strides of the feature maps in pixels, finest
    first; models for 1280 px have [8, 16, 32, 64].
    """

    defaults: ClassVar[Mapping[str, object]] = {"strides": (8, 16, 32)}

    def set_up(self) -> None:
        self._cells = grid_points(self._input, self.strides(), 0.0)
        self._rows = self.output("rows", (1, len(self._cells), 5 + self._n_labels))

    def _boxes(self, codes: np.ndarray, at: np.ndarray) -> np.ndarray:
        cells = self._cells[at]
        stride = cells[:, 2:]
        centres = codes[:, :2] * stride + cells[:, :2]
        return xyxy_of_centres(np.concatenate((centres, capped_exp(codes[:, 2:]) * stride), axis=1))
