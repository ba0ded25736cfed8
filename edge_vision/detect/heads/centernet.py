"""Head of CenterNet and CenterFace: an object is a peak in the heatmap of its class.

Sources of the method: Zhou et al., "Objects as Points" (arXiv 1904.07850) and
github.com/xingyizhou/CenterNet, `src/lib/models/decode.py` (ctdet_decode); Xu et al., "CenterFace: Joint Face
Detection and Alignment Using Face as Point" (arXiv 1911.03599) and github.com/Star-Clouds/CenterFace,
`centerface.py` (decode).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edge_vision.core.model_spec import Thresholds
from edge_vision.detect.heads.base import SET_ACTIVATION, DetectionHead, ModelBoxes
from edge_vision.detect.heads.decoding import ACTIVATIONS, at_least, capped_exp, xyxy_of_centres


@dataclass(frozen=True, slots=True)
class _Variant:
    """x: channel of sizes and offsets for x; the other one is for y. log_sizes: sizes are logarithms. middle:
    offset of a cell's centre, in cells. peaks: keep local maxima of 3 x 3 cells in place of NMS."""

    x: int
    log_sizes: bool
    middle: float
    peaks: bool


VARIANTS = {"centernet": _Variant(0, False, 0.0, True), "centerface": _Variant(1, True, 0.5, False)}


class CenterNetHead(DetectionHead):
    """Roles: heatmap (1, classes, h, w); sizes (1, 2, h, w) and offsets (1, 2, h, w), in cells.

    Options: variant, centernet (channels x, y; peaks) or centerface (channels y, x; logarithms of the sizes;
    NMS); stride, pixels of the input tensor per cell; score_activation of the heatmap, none or sigmoid.
    """

    defaults: ClassVar[Mapping[str, object]] = {
        "variant": "centernet",
        "stride": 4,
        "score_activation": "none",
    }

    def set_up(self) -> None:
        self._variant = VARIANTS[self.choice("variant", VARIANTS)]
        self._stride = self.integer("stride", 1, 1024)
        activation = self.choice("score_activation", ACTIVATIONS)
        self._activated = activation == "none"
        self._to_score, self._to_raw = ACTIVATIONS[activation]
        cells = (-(-self._input.height_px // self._stride), -(-self._input.width_px // self._stride))
        self._heatmap = self.output("heatmap", (1, self._n_labels, *cells))
        self._sizes, self._offsets = (self.output(role, (1, 2, *cells)) for role in ("sizes", "offsets"))

    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
        heatmap = self._heatmap.read(outputs)[0]
        sizes, offsets = self._sizes.read(outputs)[0], self._offsets.read(outputs)[0]
        if self._activated:
            self._heatmap.check_scores(heatmap, SET_ACTIVATION)
        at = at_least(heatmap, self._to_raw(thresholds.score_threshold))
        class_ids, y, x = np.unravel_index(at, heatmap.shape)
        if self._variant.peaks:
            top = _is_peak(heatmap, class_ids, y, x)
            class_ids, y, x = class_ids[top], y[top], x[top]
        scores = self._to_score(heatmap[class_ids, y, x])
        finish = ModelBoxes.best if self._variant.peaks else ModelBoxes.suppressed
        return finish(self._boxes(sizes[:, y, x], offsets[:, y, x], y, x), scores, class_ids, thresholds)

    def highest_score(self, outputs: Mapping[str, np.ndarray]) -> float | None:
        return float(self._to_score(self._heatmap.read(outputs).max()))

    def _boxes(self, sizes: np.ndarray, offsets: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """(2, n) sizes and offsets, (n,) rows and columns -> (n, 4) boxes in pixels of the input tensor."""
        order = [self._variant.x, 1 - self._variant.x]
        extents = capped_exp(sizes) if self._variant.log_sizes else sizes
        centres = np.stack((x, y), axis=1) + offsets[order].T + np.float32(self._variant.middle)
        return xyxy_of_centres(np.concatenate((centres, extents[order].T), axis=1) * self._stride)


def _is_peak(heatmap: np.ndarray, class_ids: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(n,) bool: no neighbouring cell is higher. Border cells are repeated beyond the border."""
    own = heatmap[class_ids, y, x]
    peak = np.ones(len(own), bool)
    for dy in (-1, 0, 1):
        rows = np.clip(y + dy, 0, heatmap.shape[1] - 1)
        for dx in (-1, 0, 1):
            peak &= heatmap[class_ids, rows, np.clip(x + dx, 0, heatmap.shape[2] - 1)] <= own
    return peak
