"""Head of DETR and RT-DETR: a fixed number of queries, each with at most one object, without suppression.

Sources of the method: Carion et al., "End-to-End Object Detection with Transformers" (arXiv 2005.12872),
github.com/facebookresearch/detr, `models/detr.py` (PostProcess); Zhao et al., "DETRs Beat YOLOs on Real-time
Object Detection" (arXiv 2304.08069), github.com/lyuwenyu/RT-DETR, `rtdetr_postprocessor.py`;
github.com/ultralytics/ultralytics, `ultralytics/nn/modules/head.py` (RTDETRDecoder) and
`ultralytics/models/rtdetr/predict.py` (postprocess: the best class of each query).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from edge_vision.core.model_spec import Thresholds
from edge_vision.detect.heads.base import DetectionHead, ModelBoxes
from edge_vision.detect.heads.decoding import at_least, logit, scale_to_px, sigmoid, softmax, xyxy_of_centres

ACTIVATIONS = {
    "sigmoid": "RT-DETR, Deformable DETR: independent classes",
    "softmax": "DETR: the last column is no object",
}


class DetrHead(DetectionHead):
    """Roles: logits (1, queries, classes), with softmax (1, queries, classes + 1); boxes (1, queries, 4) as
    centre x, centre y, width, height, relative to the image, 0 to 1.

    A logit of minus infinity is a score of 0. Option: score_activation, sigmoid (a query may have several
    classes) or softmax (only the best one). iou_threshold has no effect: the graph outputs each object once.
    """

    defaults: ClassVar[Mapping[str, object]] = {"score_activation": "sigmoid"}

    def set_up(self) -> None:
        self._softmax = self.choice("score_activation", ACTIVATIONS) == "softmax"
        self._scale = scale_to_px("relative", self._input)
        self._boxes = self.output("boxes", (1, "queries", 4))
        self._logits = self.output("logits", (1, "queries", self._n_labels + self._softmax), masked=True)

    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
        boxes, logits = self._boxes.read(outputs)[0], self._logits.read(outputs)[0]
        if len(boxes) != len(logits):
            raise self._logits.shape_error((1, len(logits), logits.shape[1]))
        query, class_ids, scores = self._found(logits, thresholds.score_threshold)
        xyxy = xyxy_of_centres(boxes[query]) * self._scale
        return ModelBoxes.best(xyxy, scores, class_ids, thresholds)

    def highest_score(self, outputs: Mapping[str, np.ndarray]) -> float | None:
        logits = self._logits.read(outputs)[0]
        if not logits.size:
            return None
        return float(softmax(logits)[:, :-1].max() if self._softmax else sigmoid(logits.max()))

    def _found(self, logits: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n,) query, class and score of the objects that reach the threshold."""
        if self._softmax:
            scores = softmax(logits)[:, :-1]
            class_ids = scores.argmax(axis=1)
            best = scores[np.arange(len(scores)), class_ids]
            passed = at_least(best, threshold)
            return passed, class_ids[passed], best[passed]
        query, class_ids = np.divmod(at_least(logits, logit(threshold)), logits.shape[1])
        return query, class_ids, sigmoid(logits[query, class_ids])


class DetrRowsHead(DetectionHead):
    """As exported by earlier versions of Ultralytics: boxes and scores in one output.

    Role: rows (1, queries, 4 + classes): centre x, centre y, width, height, 0 to 1; scores, 0 to 1. No
    options. iou_threshold has no effect: the graph outputs each object once.
    """

    def set_up(self) -> None:
        self._scale = scale_to_px("relative", self._input)
        self._rows = self.output("rows", (1, "queries", 4 + self._n_labels))

    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
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
