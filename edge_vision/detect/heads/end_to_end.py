"""Head of graphs that output final detections in rows: YOLOv10, YOLO26, RT-DETR, exports with nms=True.

Source: github.com/ultralytics/ultralytics, `ultralytics/nn/modules/head.py` (Detect.postprocess, whose rows
are left, top, right, bottom, score, class; RTDETRDecoder.postprocess, whose boxes are centre and size,
relative) and `ultralytics/engine/exporter.py` (NMSModel).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edge_vision.backends.base import TensorSpec
from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.detect.heads.base import DetectionHead, ModelBoxes, OutputReader, choice_option, read_options
from edge_vision.detect.heads.decoding import BOX_UNITS, at_least, scale_to_px, to_class_ids, xyxy_of_centres

BOX_ORDERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "xyxy": lambda boxes: boxes,
    "cxcywh": xyxy_of_centres,
}


class EndToEndHead(DetectionHead):
    """Role: rows (1, n, 6), each a box, score, class; unused rows have score 0 or
    a negative class.

    Options: box_order, xyxy (corners) or cxcywh (centre and size); box_unit, px (of the input tensor) or
    relative (0 to 1). iou_threshold has no effect.
    """

    def __init__(
        self, spec: HeadSpec, input_spec: InputSpec, outputs: Sequence[TensorSpec], n_labels: int
    ) -> None:
        options = read_options(spec, {"box_order": "xyxy", "box_unit": "px"})
        self._corners = BOX_ORDERS[choice_option(spec, "box_order", options["box_order"], BOX_ORDERS)]
        self._scale = scale_to_px(choice_option(spec, "box_unit", options["box_unit"], BOX_UNITS), input_spec)
        self._rows = OutputReader.find(spec, "rows", outputs, (1, "n", 6))
        self._n_labels = n_labels

    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
        """Rows with a class without a label are dropped. Raises HeadError."""
        rows = self._used_rows(outputs)
        self._rows.check_scores(rows[:, 4])
        rows = rows[at_least(rows[:, 4], thresholds.score_threshold)]
        class_ids = to_class_ids(rows[:, 5])
        labelled = self._labelled(class_ids, self._n_labels)
        rows, class_ids = rows[labelled], class_ids[labelled]
        xyxy = self._corners(rows[:, :4]) * self._scale
        return ModelBoxes.best(xyxy, rows[:, 4], class_ids, thresholds)

    def highest_score(self, outputs: Mapping[str, np.ndarray]) -> float | None:
        scores = self._used_rows(outputs)[:, 4]
        return float(scores.max()) if scores.size else None

    def _used_rows(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """(n, 6) rows that are not padding."""
        rows = self._rows.read(outputs)[0]
        return rows[to_class_ids(rows[:, 5]) >= 0]
