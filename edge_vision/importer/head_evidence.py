"""What a head is recognised from: the outputs of a graph, and their values in one run on noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edge_vision.backends.base import TensorSpec
from edge_vision.core.model_spec import HeadSpec

MAX_LISTED_ROWS = 1000
"""A graph that selects its objects returns no more rows; the grid of a useful image has no fewer."""
_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))


@dataclass(frozen=True, slots=True)
class HeadEvidence:
    """width_px, height_px: of the input. values: outputs of one run, {} if no backend reads the format.

    n_labels: the number of classes, if the labels are known already. task, keypoints: what the metadata
    declares, "" and None for nothing; keypoints: their number, and the values of each.
    """

    format: str
    width_px: int
    height_px: int
    outputs: tuple[TensorSpec, ...]
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    n_labels: int | None = None
    task: str = ""
    keypoints: tuple[int, int] | None = None

    def cells(self, strides: tuple[int, ...]) -> int:
        """The number of cells in all feature maps of these strides."""
        return sum(-(-self.height_px // s) * -(-self.width_px // s) for s in strides)

    def strides_of(self, n_cells: int) -> tuple[int, ...] | None:
        """The strides whose feature maps have this many cells in total, None for no known ones."""
        return next((strides for strides in _STRIDES if self.cells(strides) == n_cells), None)

    def single(self, dimensions: int) -> TensorSpec | None:
        """The output, if there is only one, with this many dimensions, all of known length."""
        one = self.outputs[0] if len(self.outputs) == 1 else None
        known = one and len(one.shape) == dimensions and one.shape[0] == 1 and None not in one.shape
        return one if known else None

    def has_relative_boxes(self, boxes: np.ndarray | None) -> bool:
        """Whether (n, 4) boxes are relative to the image size. Without values: TFLite exports are."""
        if boxes is None:
            return self.format == "tflite"
        return float(np.abs(boxes).max()) <= 4.0


@dataclass(frozen=True, slots=True)
class HeadGuess:
    """family: of `preprocessing.FAMILIES`. n_classes: None if the outputs do not determine it."""

    family: str
    spec: HeadSpec
    n_classes: int | None
    why: str


def format_shape(shape: tuple[int | None, ...]) -> str:
    """A shape as text."""
    return f"[{', '.join(str(size or 'any') for size in shape)}]"


def in_unit_interval(values: np.ndarray) -> bool:
    """Whether all values are from 0 to 1."""
    return bool(values.size and values.min() >= -1e-3 and values.max() <= 1 + 1e-3)
