"""Head of NanoDet: distances to the four sides, each a distribution over 0..reg_max cells.

Source of the method: Li et al., "Generalized Focal Loss" (arXiv 2006.04388); github.com/RangiLyu/nanodet,
`nanodet/model/head/nanodet_plus_head.py` (get_bboxes, and _forward_onnx for the output's order).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from edge_vision.core.model_spec import Thresholds
from edge_vision.detect.heads.base import SET_ACTIVATION, DetectionHead, ModelBoxes
from edge_vision.detect.heads.decoding import ACTIVATIONS, at_least, grid_points, softmax


class NanoDetHead(DetectionHead):
    """Role: rows (1, n, classes + 4 * (reg_max + 1)): class scores, then the logits of the distances left,
    top, right, bottom, each over 0..reg_max cells. n is the cells of all feature maps.

    Options: strides, finest first (the first NanoDet has [8, 16, 32]); reg_max; cell_offset, position of
    the point in its cell, 0 in NanoDet-Plus and 0.5 before; score_activation, none if the graph contains it,
    or sigmoid.
    """

    defaults: ClassVar[Mapping[str, object]] = {
        "strides": (8, 16, 32, 64),
        "reg_max": 7,
        "cell_offset": 0.0,
        "score_activation": "none",
    }

    def set_up(self) -> None:
        offset = self._options["cell_offset"]
        if type(offset) not in (int, float) or not 0.0 <= offset <= 1.0:
            raise self._wrong("cell_offset", "a number from 0 to 1")
        self.points = grid_points(self._input, self.strides(), offset)
        activation = self.choice("score_activation", ACTIVATIONS)
        self._activated = activation == "none"
        self.to_score, self.to_raw = ACTIVATIONS[activation]
        self.steps = np.arange(self.integer("reg_max", 1, 1024) + 1, dtype=np.float32)
        width = self._n_labels + 4 * len(self.steps)
        self._rows = self.output("rows", (1, len(self.points), width))

    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
        """Each class of each point that reaches the threshold is a candidate. Raises HeadError."""
        rows = self._rows.read(outputs)[0]
        raw = rows[:, : self._n_labels]
        at, class_ids = np.divmod(at_least(raw, self.to_raw(thresholds.score_threshold)), self._n_labels)
        scores = self.to_score(raw[at, class_ids])
        if self._activated:
            self._rows.check_scores(raw, SET_ACTIVATION, candidates=scores)
        xyxy = self.to_boxes(rows[at, self._n_labels :], self.points[at])
        return ModelBoxes.suppressed(xyxy, scores, class_ids, thresholds)

    def highest_score(self, outputs: Mapping[str, np.ndarray]) -> float | None:
        return float(self.to_score(self._rows.read(outputs)[0, :, : self._n_labels].max()))

    def to_boxes(self, logits: np.ndarray, points: np.ndarray) -> np.ndarray:
        """(n, 4 * steps) logits and (n, 3) points -> (n, 4) boxes in pixels of the input tensor."""
        shares = softmax(logits.reshape(-1, 4, len(self.steps)))
        distances = shares @ self.steps * points[:, 2:]
        return np.concatenate((points[:, :2] - distances[:, :2], points[:, :2] + distances[:, 2:]), axis=1)
