"""Head of graphs that output final boxes, scores and classes, one row per object, without further
suppression.

RT-DETR as its own export script writes it, saved models of TF object detection in ONNX, and TFLite models
that end in the operator TFLite_Detection_PostProcess.

Sources: github.com/lyuwenyu/RT-DETR, `rtdetr_pytorch/tools/export_onnx.py`; TF object detection,
`exporter_lib_v2.py` (detection_boxes, detection_classes, detection_scores, num_detections);
tensorflow/lite/kernels/detection_postprocess.cc.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from edge_vision.core.model_spec import Thresholds
from edge_vision.detect.heads.base import DetectionHead, ModelBoxes
from edge_vision.detect.heads.decoding import BOX_UNITS, at_least, scale_to_px, to_class_ids

BOX_ORDERS = {"xyxy": [0, 1, 2, 3], "yxyx": [1, 0, 3, 2]}


class DecodedHead(DetectionHead):
    """Roles: boxes (1, n, 4), scores (1, n), classes (1, n); and optionally count (1), the number
    of valid rows.

    Options: box_order, xyxy or yxyx; box_unit, px (of the input tensor) or relative (0 to 1); first_class,
    the graph's number for label 0. iou_threshold has no effect.
    """

    defaults: ClassVar[Mapping[str, object]] = {"box_order": "xyxy", "box_unit": "px", "first_class": 0}

    def set_up(self) -> None:
        self._order = BOX_ORDERS[self.choice("box_order", BOX_ORDERS)]
        self._scale = scale_to_px(self.choice("box_unit", BOX_UNITS), self._input)
        self._first = self.integer("first_class", 0, 1)
        self._boxes = self.output("boxes", (1, "n", 4))
        self._scores, self._classes = self.output("scores", (1, "n")), self.output("classes", (1, "n"))
        self._count = self.output("count", (1,)) if "count" in self._spec.outputs else None

    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
        """Rows with a class below first_class are padding; rows with a class without a label are dropped.

        Raises HeadError.
        """
        boxes, classes = self._boxes.read(outputs)[0], self._classes.read(outputs)[0]
        scores = self._valid_scores(outputs)
        if len(classes) != len(boxes):
            raise self._classes.shape_error((1, len(classes)))
        if len(scores) > len(boxes):
            raise self._scores.shape_error((1, len(scores)))
        class_ids = to_class_ids(classes[: len(scores)], self._first)
        self._scores.check_scores(scores[class_ids >= 0])
        passed = at_least(scores, thresholds.score_threshold)
        passed = passed[self._labelled(class_ids[passed], self._n_labels)]
        class_ids = class_ids[passed]
        xyxy = boxes[passed][:, self._order] * self._scale
        return ModelBoxes.best(xyxy, scores[passed], class_ids, thresholds)

    def highest_score(self, outputs: Mapping[str, np.ndarray]) -> float | None:
        scores = self._valid_scores(outputs)
        classes = self._classes.read(outputs)[0, : len(scores)]
        scores = scores[to_class_ids(classes, self._first) >= 0]
        return float(scores.max()) if scores.size else None

    def _valid_scores(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The scores of the valid rows."""
        scores = self._scores.read(outputs)[0]
        if self._count is None:
            return scores
        return scores[: max(0, round(float(self._count.read(outputs)[0])))]


class TfliteDetectionHead(DecodedHead):
    """Roles: boxes (1, n, 4) as top, left, bottom, right, 0 to 1; classes (1, n); scores (1, n); count (1).

    Options as DecodedHead, with the operator's order, unit and first class as defaults.
    """

    defaults: ClassVar[Mapping[str, object]] = {"box_order": "yxyx", "box_unit": "relative", "first_class": 0}
