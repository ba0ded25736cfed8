"""The head of NanoDet: distances to the four sides, each as a distribution over whole cells.

Source of the method: Li et al., "Generalized Focal Loss" (arXiv 2006.04388); github.com/RangiLyu/nanodet,
`nanodet/model/head/nanodet_plus_head.py` (get_bboxes, and _forward_onnx for the output's order).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.detect.heads.base import (
    DetectionHead,
    ModelBoxes,
    OutputReader,
    choose,
    number_of,
    read_options,
    sizes_of,
    whole_of,
)
from edge_vision.detect.heads.geometry import grid_points
from edge_vision.detect.heads.scores import ACTIVATIONS, at_least, softmax

if TYPE_CHECKING:
    from edge_vision.backends.base import TensorSpec

_DEFAULTS: dict[str, object] = {
    "strides": (8, 16, 32, 64),
    "reg_max": 7,
    "cell_offset": 0.0,
    "score_activation": "none",
}


class NanoDetHead(DetectionHead):
    """Role: rows (1, n, classes + 4 * (reg_max + 1)): class scores, then the logits of the distances left,
    top, right, bottom, each over 0..reg_max cells. n is the cells of all feature maps.

    Options: strides, finest first (the first NanoDet has [8, 16, 32]); reg_max; cell_offset, where in its
    cell a point lies, 0 in NanoDet-Plus and 0.5 before; score_activation, none where the graph has it, or
    sigmoid.
    """

    def __init__(
        self, spec: HeadSpec, input_spec: InputSpec, outputs: Sequence[TensorSpec], n_labels: int
    ) -> None:
        """Raises HeadError where the options or the outputs do not fit."""
        options = read_options(spec, _DEFAULTS)
        offset = number_of(spec, "cell_offset", options["cell_offset"], 0.0, 1.0)
        self._points = grid_points(input_spec, sizes_of(spec, "strides", options["strides"]), offset)
        activation = choose(spec, "score_activation", options["score_activation"], ACTIVATIONS)
        self._to_score, self._to_raw = ACTIVATIONS[activation]
        steps = whole_of(spec, "reg_max", options["reg_max"], 1, 1024) + 1
        self._steps = np.arange(steps, dtype=np.float32)
        self._n_labels = n_labels
        width = n_labels + 4 * len(self._steps)
        self._rows = OutputReader.find(spec, "rows", outputs, (1, len(self._points), width))

    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
        """Every class of every point that passes is a candidate; only its distributions are summed up."""
        rows = self._rows.read(outputs)[0]
        raw = rows[:, : self._n_labels]
        place, class_ids = np.divmod(at_least(raw, self._to_raw(thresholds.score_threshold)), self._n_labels)
        scores = self._to_score(raw[place, class_ids])
        xyxy = self._boxes(rows[place, self._n_labels :], self._points[place])
        return ModelBoxes.suppressed(xyxy, scores, class_ids, thresholds)

    def highest_score(self, outputs: Mapping[str, np.ndarray]) -> float | None:
        return float(self._to_score(self._rows.read(outputs)[0, :, : self._n_labels].max()))

    def _boxes(self, logits: np.ndarray, points: np.ndarray) -> np.ndarray:
        """(n, 4 * steps) logits and (n, 3) points -> (n, 4) boxes in pixels of the input tensor."""
        shares = softmax(logits.reshape(-1, 4, len(self._steps)))
        distances = shares @ self._steps * points[:, 2:]
        return np.concatenate((points[:, :2] - distances[:, :2], points[:, :2] + distances[:, 2:]), axis=1)
