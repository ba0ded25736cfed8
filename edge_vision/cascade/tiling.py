"""Where a cascade looks: square looks of one size over the regions of a frame, and tiles over all of it.

A stage that was fitted on looks of one size must be shown looks of that size, whatever regions the gate
gives: a small region gets one look around it, a large one is covered by several. So the cost is bounded by
the frame's size, not by how many regions there are: 500 regions in one place are one look.
"""

from __future__ import annotations

import numpy as np

MIN_SIDE_PX = 16
NO_LOOKS = np.zeros((0, 4), np.float32)


def side_px(width_px: int, height_px: int, share: float) -> int:
    """The side of a look: a share of the frame's shorter side, at least 16 px, never more than that side."""
    shorter_px = min(width_px, height_px)
    return max(1, min(max(MIN_SIDE_PX, round(share * shorter_px)), shorter_px))


def tiles(width_px: int, height_px: int, side: int) -> np.ndarray:
    """(n, 4) float32 xyxy_px: as few squares as cover the frame, evenly spread; they overlap a little."""
    return _cover(np.array([0, 0, width_px, height_px], np.float64), width_px, height_px, side)


def inside(regions: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """The regions (n, 4), clipped to the frame; those that lie outside it are left out.

    Raises ValueError for an array that is no (n, 4) or has numbers that are not finite.
    """
    boxes = np.asarray(regions, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ValueError(f"expected regions (n, 4) of finite numbers, got shape {boxes.shape}")
    clipped = np.clip(boxes, 0.0, [width_px, height_px, width_px, height_px])
    return np.asarray(clipped[(clipped[:, 2:] > clipped[:, :2]).all(axis=1)])


def looks_at(
    regions: np.ndarray, width_px: int, height_px: int, side: int, limit: int = 10_000
) -> np.ndarray:
    """(m, 4) float32 looks that cover these regions. A region within a look that is there already adds none.

    limit: with more looks than this it goes no further, and some regions are left out. Raises ValueError as
    `inside` does.
    """
    boxes = inside(regions, width_px, height_px)
    # The large ones first: their looks may hold the small ones.
    boxes = boxes[np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), kind="stable")]
    found = NO_LOOKS
    while len(boxes) and len(found) <= limit:
        new = _cover(boxes[0], width_px, height_px, side)
        found = np.unique(np.concatenate([found, new]), axis=0)
        boxes = boxes[1:][~covered(boxes[1:], new)]
    return found


def covered(boxes: np.ndarray, looks: np.ndarray) -> np.ndarray:
    """(n,) bool, which of the boxes (n, 4) lie within one of the looks (m, 4)."""
    starts = looks[None, :, :2] <= boxes[:, None, :2]
    ends = looks[None, :, 2:] >= boxes[:, None, 2:]
    within = np.all(starts & ends, axis=2)
    return np.asarray(np.any(within, axis=1))


def _cover(box: np.ndarray, width_px: int, height_px: int, side: int) -> np.ndarray:
    lefts = _starts(box[0], box[2], width_px, side)
    tops = _starts(box[1], box[3], height_px, side)
    left, top = (grid.ravel() for grid in np.meshgrid(lefts, tops))
    return np.stack([left, top, left + side, top + side], axis=1).astype(np.float32)


def _starts(first: float, last: float, limit_px: int, side: int) -> np.ndarray:
    """Where squares begin that cover first..last: one around it, or several from end to end; in the frame."""
    n = max(1, int(np.ceil((last - first) / side - 1e-6)))
    if n == 1:
        starts = np.array([(first + last - side) / 2])
    else:
        starts = np.linspace(first, last - side, n)
    return np.clip(np.round(starts), 0, limit_px - side)


class RoundRobin:
    """Tiles of the frame in turn, so that every part of it is looked at now and then."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, grid: np.ndarray, looks: np.ndarray, n: int) -> np.ndarray:
        """The next n tiles of the grid (m, 4) that are not among the looks; fewer where there are none."""
        taken: list[np.ndarray] = []
        for _ in range(len(grid)):
            if len(taken) == n:
                break
            tile = grid[self._next % len(grid)]
            self._next = (self._next + 1) % len(grid)
            if not covered(tile[None], looks)[0]:
                taken.append(tile)
        return np.stack(taken) if taken else NO_LOOKS
