"""Head of SSD detectors of TensorFlow's object detection API: anchors, encoded boxes, class scores.

Source of the method: Liu et al., "SSD: Single Shot MultiBox Detector" (2016), and that API's
`ssd_anchor_generator`, `faster_rcnn_box_coder` and `multiclass_non_max_suppression`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import ClassVar

import numpy as np

from edge_vision.core.model_spec import Thresholds
from edge_vision.detect.heads.base import SET_ACTIVATION, DetectionHead, ModelBoxes
from edge_vision.detect.heads.decoding import ACTIVATIONS, capped_exp


@lru_cache(maxsize=4)
def ssd_mobilenet_v2_anchors(width_px: int, height_px: int) -> np.ndarray:
    """(n, 4) float32: centre y, centre x, height, width of each anchor in pixels of the input tensor.

    Six feature maps, the first at stride 16, each next half as large; sizes from 0.2 to 0.95 of 300 px,
    the input size for which the layout was designed.
    """
    rows, columns = math.ceil(height_px / 16), math.ceil(width_px / 16)
    scales = [0.2 + 0.75 * level / 5 for level in range(6)] + [1.0]
    maps = []
    for level in range(6):
        shapes = _anchor_shapes(scales, level) * 300.0
        maps.append(_anchor_grid(rows, columns, height_px, width_px, shapes))
        rows, columns = math.ceil(rows / 2), math.ceil(columns / 2)
    anchors = np.concatenate(maps).astype(np.float32)
    anchors.flags.writeable = False
    return anchors


def _anchor_shapes(scales: Sequence[float], level: int) -> np.ndarray:
    """(k, 2): relative height and width of the anchors of one cell."""
    if level == 0:
        pairs = [(0.1, 1.0), (scales[0], 2.0), (scales[0], 0.5)]
    else:
        pairs = [(scales[level], aspect) for aspect in (1.0, 2.0, 0.5, 3.0, 0.3333)]
        pairs.append((math.sqrt(scales[level] * scales[level + 1]), 1.0))
    return np.array([(scale / math.sqrt(aspect), scale * math.sqrt(aspect)) for scale, aspect in pairs])


def _anchor_grid(rows: int, columns: int, height_px: int, width_px: int, shapes: np.ndarray) -> np.ndarray:
    """(rows * columns * k, 4): every shape at the centre of every cell, row by row."""
    grid = np.empty((rows, columns, len(shapes), 4))
    grid[..., 0] = ((np.arange(rows) + 0.5) / rows * height_px)[:, None, None]
    grid[..., 1] = ((np.arange(columns) + 0.5) / columns * width_px)[None, :, None]
    grid[..., 2:] = shapes
    return grid.reshape(-1, 4)


ANCHOR_LAYOUTS: dict[str, Callable[[int, int], np.ndarray]] = {"ssd_mobilenet_v2": ssd_mobilenet_v2_anchors}


class SsdHead(DetectionHead):
    """Roles: boxes (1, anchors, 4) as y, x, h, w codes; scores (1, anchors, classes).

    Options: anchor_layout; scale_factors, four divisors of the codes; background, whether class 0 of the
    graph is the background and label 0 its class 1; score_activation, sigmoid or none.
    """

    defaults: ClassVar[Mapping[str, object]] = {
        "anchor_layout": "ssd_mobilenet_v2",
        "scale_factors": (10.0, 10.0, 5.0, 5.0),
        "background": True,
        "score_activation": "sigmoid",
    }

    def set_up(self) -> None:
        layout = ANCHOR_LAYOUTS[self.choice("anchor_layout", ANCHOR_LAYOUTS)]
        activation = self.choice("score_activation", ACTIVATIONS)
        self._activated = activation == "none"
        self.to_score, self.to_raw = ACTIVATIONS[activation]
        self.anchors = layout(self._input.width_px, self._input.height_px)
        self.per_code = 1.0 / self._scale_factors()
        self._skip = 1 if self._options["background"] else 0
        n, columns = len(self.anchors), self._n_labels + self._skip
        self._boxes = self.output("boxes", (1, n, 4))
        self._scores = self.output("scores", (1, n, columns))
        self._passed = np.zeros((n, columns), bool)

    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
        """Each class of each anchor that reaches the threshold is a candidate. Raises HeadError.

        The threshold is applied to raw values, so that only candidates are activated and decoded.
        """
        codes, raw = self._boxes.read(outputs)[0], self._scores.read(outputs)[0]
        if self._activated:
            self._scores.check_scores(raw, SET_ACTIVATION)
        anchor, column = self._candidates(raw, thresholds.score_threshold)
        scores = self.to_score(raw[anchor, column])
        xyxy = self.to_boxes(codes[anchor], self.anchors[anchor])
        class_ids = (column - self._skip).astype(np.int32)
        return ModelBoxes.suppressed(xyxy, scores, class_ids, thresholds)

    def highest_score(self, outputs: Mapping[str, np.ndarray]) -> float | None:
        raw = self._scores.read(outputs)[0, :, self._skip :]
        return float(self.to_score(raw.max())) if raw.size else None

    def _candidates(self, raw: np.ndarray, score_threshold: float) -> tuple[np.ndarray, np.ndarray]:
        np.greater_equal(raw, np.float32(self.to_raw(score_threshold)), out=self._passed)
        self._passed[:, : self._skip] = False
        # See `scores.at_least`; this writes into a buffer.
        return np.divmod(np.flatnonzero(self._passed), raw.shape[1])

    def to_boxes(self, codes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
        """(n, 4) codes and anchors -> (n, 4) float32 boxes in pixels of the input tensor."""
        steps = codes * self.per_code
        centre = steps[:, :2] * anchors[:, 2:] + anchors[:, :2]
        half = capped_exp(steps[:, 2:]) * anchors[:, 2:] * np.float32(0.5)
        return np.concatenate((centre - half, centre + half), axis=1)[:, [1, 0, 3, 2]]

    def _scale_factors(self) -> np.ndarray:
        value = self._options["scale_factors"]
        factors = np.asarray(value if isinstance(value, (list, tuple)) else (), np.float32)
        if factors.shape != (4,) or not (factors > 0).all():
            raise self._wrong("scale_factors", "four positive numbers (y, x, h, w)")
        return factors
