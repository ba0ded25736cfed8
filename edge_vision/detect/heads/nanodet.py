"""Head of NanoDet: distances to the four sides, each a distribution over 0..reg_max cells.

Source of the method: Li et al., "Generalized Focal Loss" (arXiv 2006.04388); github.com/RangiLyu/nanodet,
`nanodet/model/head/nanodet_plus_head.py` (get_bboxes, and _forward_onnx for the output's order).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edge_vision.backends.base import TensorSpec
from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.detect.heads.base import (
    SET_ACTIVATION,
    DetectionHead,
    ModelBoxes,
    OutputReader,
    choice_option,
    float_option,
    int_list_option,
    int_option,
    read_options,
)
from edge_vision.detect.heads.decoding import ACTIVATIONS, at_least, grid_points, softmax

_DEFAULTS: dict[str, object] = {
    "strides": (8, 16, 32, 64),
    "reg_max": 7,
    "cell_offset": 0.0,
    "score_activation": "none",
}


class NanoDetHead(DetectionHead):
    """Role: rows (1, n, classes + 4 * (reg_max + 1)): class scores, then the logits of the distances left,
    top, right, bottom, each over 0..reg_max cells. n is the cells of all feature maps.

    Options: strides, finest first (the first NanoDet has [8, 16, 32]); reg_max; cell_offset, position of
    the point in its cell, 0 in NanoDet-Plus and 0.5 before; score_activation, none if the graph contains it,
    or sigmoid.
    """

    def __init__(
        self, spec: HeadSpec, input_spec: InputSpec, outputs: Sequence[TensorSpec], n_labels: int
    ) -> None:
        options = read_options(spec, _DEFAULTS)
        offset = float_option(spec, "cell_offset", options["cell_offset"], 0.0, 1.0)
        self._points = grid_points(input_spec, int_list_option(spec, "strides", options["strides"]), offset)
        activation = choice_option(spec, "score_activation", options["score_activation"], ACTIVATIONS)
        self._activated = activation == "none"
        self._to_score, self._to_raw = ACTIVATIONS[activation]
        steps = int_option(spec, "reg_max", options["reg_max"], 1, 1024) + 1
        self._steps = np.arange(steps, dtype=np.float32)
        self._n_labels = n_labels
        width = n_labels + 4 * len(self._steps)
        self._rows = OutputReader.find(spec, "rows", outputs, (1, len(self._points), width))

    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
        """Each class of each point that reaches the threshold is a candidate. Raises HeadError."""
        rows = self._rows.read(outputs)[0]
        raw = rows[:, : self._n_labels]
        at, class_ids = np.divmod(at_least(raw, self._to_raw(thresholds.score_threshold)), self._n_labels)
        scores = self._to_score(raw[at, class_ids])
        if self._activated:
            self._rows.check_scores(raw, SET_ACTIVATION, candidates=scores)
        xyxy = self._boxes(rows[at, self._n_labels :], self._points[at])
        return ModelBoxes.suppressed(xyxy, scores, class_ids, thresholds)

    def highest_score(self, outputs: Mapping[str, np.ndarray]) -> float | None:
        return float(self._to_score(self._rows.read(outputs)[0, :, : self._n_labels].max()))

    def _boxes(self, logits: np.ndarray, points: np.ndarray) -> np.ndarray:
        """(n, 4 * steps) logits and (n, 3) points -> (n, 4) boxes in pixels of the input tensor."""
        shares = softmax(logits.reshape(-1, 4, len(self._steps)))
        distances = shares @ self._steps * points[:, 2:]
        return np.concatenate((points[:, :2] - distances[:, :2], points[:, :2] + distances[:, 2:]), axis=1)
