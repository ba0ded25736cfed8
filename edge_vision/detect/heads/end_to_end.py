"""Head of graphs that output final detections in rows: YOLOv10, YOLO26, RT-DETR, exports with nms=True.

Source: github.com/ultralytics/ultralytics, `ultralytics/nn/modules/head.py` (Detect.postprocess, whose rows
are left, top, right, bottom, score, class; RTDETRDecoder.postprocess, whose boxes are centre and size,
relative) and `ultralytics/engine/exporter.py` (NMSModel).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from edge_vision.core.geometry.boxes import Overlaps
from edge_vision.core.model_spec import Thresholds
from edge_vision.detect.heads.base import ModelBoxes
from edge_vision.detect.heads.decoding import at_least, to_class_ids, xyxy_of_centres
from edge_vision.detect.heads.extra import ExtraValuesHead

BOX_ORDERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "xyxy": lambda boxes: boxes,
    "cxcywh": xyxy_of_centres,
}


class EndToEndHead(ExtraValuesHead):
    """Role: rows (1, n, 6), each a box, score, class; unused rows have score 0 or a negative class.

    Options: box_order, xyxy (corners) or cxcywh (centre and size); box_unit, px (of the input tensor) or
    relative (0 to 1). iou_threshold has no effect.
    """

    defaults: ClassVar[Mapping[str, object]] = {"box_order": "xyxy", "box_unit": "px"}

    def _find_rows(self, n_extra: int) -> None:
        order = self.choice("box_order", BOX_ORDERS) if "box_order" in self._options else "cxcywh"
        self._order = BOX_ORDERS[order]
        self._output = self.output("rows", (1, "n", 6 + n_extra))

    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
        """Rows with a class without a label are dropped. Raises HeadError."""
        rows = self._used_rows(outputs)
        self._output.check_scores(rows[:, 4])
        rows = rows[at_least(rows[:, 4], thresholds.score_threshold)]
        class_ids = to_class_ids(rows[:, 5])
        labelled = self._labelled(class_ids, self._n_labels)
        rows, class_ids = rows[labelled], class_ids[labelled]
        extra = rows[:, 6:] if rows.shape[1] > 6 else None
        return self._objects(rows[:, :4] * self._scale, rows[:, 4], class_ids, thresholds, extra)

    def _corners(self, boxes: np.ndarray) -> np.ndarray:
        return self._order(boxes)

    def _keep(
        self,
        boxes: np.ndarray,
        scores: np.ndarray,
        class_ids: np.ndarray,
        thresholds: Thresholds,
        overlap_test: Overlaps | None = None,
    ) -> np.ndarray:
        return np.argsort(-scores, kind="stable")[: thresholds.max_detections]

    def highest_score(self, outputs: Mapping[str, np.ndarray]) -> float | None:
        scores = self._used_rows(outputs)[:, 4]
        return float(scores.max()) if scores.size else None

    def _used_rows(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """(n, 6 + extra) rows that are not padding."""
        rows = self._output.read(outputs)[0]
        return rows[to_class_ids(rows[:, 5]) >= 0]
