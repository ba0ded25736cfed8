"""Square crops of one size that cover the regions of a frame, and tiles that cover all of it.

A stage that was fitted on crops of one size needs crops of that size, whatever regions the gate gives: one
crop around a small region, several over a large one. So the cost is bounded by the frame's size and not by
the number of regions: 500 regions close together are one crop.
"""

from __future__ import annotations

import numpy as np

MIN_SIDE_PX = 16
NO_CROPS = np.zeros((0, 4), np.float32)


def crop_side_px(width_px: int, height_px: int, share: float) -> int:
    """A share of the frame's shorter side, at least 16 px, but never more than that side."""
    shorter_px = min(width_px, height_px)
    return max(1, min(max(MIN_SIDE_PX, round(share * shorter_px)), shorter_px))


def tiles(width_px: int, height_px: int, side_px: int) -> np.ndarray:
    """(n, 4) float32 xyxy_px: the fewest squares that cover the frame, evenly spaced."""
    return _cover(np.array([0, 0, width_px, height_px], np.float64), width_px, height_px, side_px)


def clip_regions(regions: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """The regions (n, 4), clipped to the frame, without those outside it.

    Raises ValueError if the array is not (n, 4) or not finite.
    """
    boxes = np.asarray(regions, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ValueError(f"expected regions (n, 4) of finite numbers, got shape {boxes.shape}")
    clipped = np.clip(boxes, 0.0, [width_px, height_px, width_px, height_px])
    return np.asarray(clipped[(clipped[:, 2:] > clipped[:, :2]).all(axis=1)])


def covering_crops(
    regions: np.ndarray, width_px: int, height_px: int, side_px: int, limit: int = 10_000
) -> np.ndarray:
    """(m, 4) float32 xyxy_px: crops that cover the regions. A region within a crop adds none.

    limit: it stops after the region that exceeds this number of crops. Raises ValueError as `clip_regions`.
    """
    boxes = clip_regions(regions, width_px, height_px)
    # Largest first: their crops may contain small regions.
    boxes = boxes[np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), kind="stable")]
    crops = NO_CROPS
    while len(boxes) and len(crops) <= limit:
        new = _cover(boxes[0], width_px, height_px, side_px)
        crops = np.unique(np.concatenate([crops, new]), axis=0)
        boxes = boxes[1:][~is_covered(boxes[1:], new)]
    return crops


def is_covered(boxes: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """(n,) bool: which of the boxes (n, 4) lie within one of the crops (m, 4)."""
    starts = crops[None, :, :2] <= boxes[:, None, :2]
    ends = crops[None, :, 2:] >= boxes[:, None, 2:]
    return np.asarray(np.any(np.all(starts & ends, axis=2), axis=1))


def _cover(box: np.ndarray, width_px: int, height_px: int, side_px: int) -> np.ndarray:
    lefts = _starts(box[0], box[2], width_px, side_px)
    tops = _starts(box[1], box[3], height_px, side_px)
    left, top = (grid.ravel() for grid in np.meshgrid(lefts, tops))
    return np.stack([left, top, left + side_px, top + side_px], axis=1).astype(np.float32)


def _starts(first: float, last: float, limit_px: int, side_px: int) -> np.ndarray:
    """Left or top edges of the squares that cover first..last: one centred, or several evenly spaced."""
    n = max(1, int(np.ceil((last - first) / side_px - 1e-6)))
    starts = np.array([(first + last - side_px) / 2]) if n == 1 else np.linspace(first, last - side_px, n)
    return np.clip(np.round(starts), 0, limit_px - side_px)


class RoundRobin:
    """Takes tiles of the frame in turn, so that each of them is classified at intervals."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, grid: np.ndarray, crops: np.ndarray, n: int) -> np.ndarray:
        """The next n tiles of the grid (m, 4) that lie in none of the crops; fewer if there are fewer."""
        taken: list[np.ndarray] = []
        for _ in range(len(grid)):
            if len(taken) == n:
                break
            tile = grid[self._next % len(grid)]
            self._next = (self._next + 1) % len(grid)
            if not is_covered(tile[None], crops)[0]:
                taken.append(tile)
        return np.stack(taken) if taken else NO_CROPS
