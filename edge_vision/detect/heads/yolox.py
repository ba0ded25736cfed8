"""Head of YOLOX as its export script writes it: boxes in grid cells.

Source of the method: Ge et al., "YOLOX: Exceeding YOLO Series in 2021" (arXiv 2107.08430);
github.com/Megvii-BaseDetection/YOLOX, `yolox/models/yolo_head.py` (decode_outputs) and
`tools/export_onnx.py`.
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
    int_list_option,
    read_options,
)
from edge_vision.detect.heads.geometry import capped_exp, grid_points, xyxy_of_centres
from edge_vision.detect.heads.scores import at_least, best_classes, highest_of_rows

if TYPE_CHECKING:
    from edge_vision.backends.base import TensorSpec


class YoloxHead(DetectionHead):
    """Role: rows (1, n, 5 + classes): centre offset x, y and logarithm of width, height, in cells,
    objectness, class scores; the last two activated by the graph. n is the cells of all feature maps.

    Option: strides of the feature maps in pixels, finest first; models for 1280 px have [8, 16, 32, 64].
    """

    def __init__(
        self, spec: HeadSpec, input_spec: InputSpec, outputs: Sequence[TensorSpec], n_labels: int
    ) -> None:
        """Raises HeadError if the options or the outputs do not match."""
        options = read_options(spec, {"strides": (8, 16, 32)})
        self._cells = grid_points(input_spec, int_list_option(spec, "strides", options["strides"]), 0.0)
        self._rows = OutputReader.find(spec, "rows", outputs, (1, len(self._cells), 5 + n_labels))

    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
        """Raises HeadError."""
        rows = self._rows.read(outputs)[0]
        # A score never exceeds the objectness, which rules out most cells.
        likely = at_least(rows[:, 4], thresholds.score_threshold)
        self._rows.check_scores(rows[:, 4], candidates=rows[likely, 4])
        self._rows.check_scores(rows[likely, 5:])
        best, scores = best_classes(rows[likely])
        passed = at_least(scores, thresholds.score_threshold)
        at = likely[passed]
        xyxy = _boxes(rows[at, :4], self._cells[at])
        return ModelBoxes.suppressed(xyxy, scores[passed], best[passed], thresholds)

    def highest_score(self, outputs: Mapping[str, np.ndarray]) -> float | None:
        return highest_of_rows(self._rows.read(outputs)[0])


def _boxes(codes: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """(n, 4) codes and (n, 3) cells -> (n, 4) boxes in pixels of the input tensor."""
    stride = cells[:, 2:]
    centres = codes[:, :2] * stride + cells[:, :2]
    return xyxy_of_centres(np.concatenate((centres, capped_exp(codes[:, 2:]) * stride), axis=1))
