"""Box formats, units and anchor-free grids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_vision.core.model_spec import InputSpec

BOX_UNITS = {"px": "pixels of the input tensor", "relative": "0 to 1 of its width and height"}
# Larger codes come from damaged outputs; the cap keeps their boxes finite.
MAX_EXPONENT = 20.0


def xyxy_of_centres(cxcywh: np.ndarray) -> np.ndarray:
    """(n, 4) centre x, centre y, width, height -> (n, 4) left, top, right, bottom."""
    half = cxcywh[:, 2:] * np.float32(0.5)
    return np.concatenate((cxcywh[:, :2] - half, cxcywh[:, :2] + half), axis=1)


def capped_exp(codes: np.ndarray) -> np.ndarray:
    """exp(codes), capped to stay finite."""
    return np.exp(np.minimum(codes, np.float32(MAX_EXPONENT)))


def scale_to_px(unit: str, input_spec: InputSpec) -> np.ndarray:
    """(4,) float32, factors from a unit of BOX_UNITS to pixels of the input tensor."""
    size = (input_spec.width_px, input_spec.height_px) * 2 if unit == "relative" else (1.0,) * 4
    return np.array(size, np.float32)


def grid_points(input_spec: InputSpec, strides: Sequence[int], cell_offset: float) -> np.ndarray:
    """(n, 3) float32: x, y and stride, in pixels of the input tensor, of every cell of every feature map.

    Map by map in the order of the strides, row by row. A point lies cell_offset cells into its cell. A map
    has ceil(size / stride) cells a side, as padded convolutions give.
    """
    maps = []
    for stride in strides:
        rows, columns = -(-input_spec.height_px // stride), -(-input_spec.width_px // stride)
        cells = np.empty((rows, columns, 3), np.float32)
        cells[..., 0] = (np.arange(columns) + cell_offset) * stride
        cells[..., 1] = ((np.arange(rows) + cell_offset) * stride)[:, None]
        cells[..., 2] = stride
        maps.append(cells.reshape(-1, 3))
    return np.concatenate(maps)
