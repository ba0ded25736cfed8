"""Crops of one size cover the regions within the frame; tiles cover the frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_vision.cascade.tiling import (
    MIN_SIDE_PX,
    RoundRobin,
    clip_regions,
    covering_crops,
    crop_side_px,
    is_covered,
    tiles,
)

SIZES = st.tuples(st.integers(20, 400), st.integers(20, 300))
NUMBERS = st.floats(-100, 500, width=32)
BOXES = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=12)


def painted(boxes: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """True for each pixel that one of the boxes covers wholly."""
    seen = np.zeros((height_px, width_px), bool)
    for left, top, right, bottom in boxes:
        seen[int(np.ceil(top)) : int(bottom), int(np.ceil(left)) : int(right)] = True
    return seen


@given(SIZES, st.floats(0.2, 1.0), BOXES)
@settings(deadline=None, max_examples=150)
def test_crops_cover_all_regions_and_lie_in_the_frame(size, share, boxes):
    width_px, height_px = size
    side = crop_side_px(width_px, height_px, share)
    regions = np.array(boxes, np.float32).reshape(-1, 4)
    crops = covering_crops(regions, width_px, height_px, side)
    assert crops.dtype == np.float32 and crops.shape[1:] == (4,)
    clipped = clip_regions(regions, width_px, height_px)
    assert bool(len(crops)) == bool(len(clipped))
    assert (crops[:, :2] >= 0).all() and (crops[:, 2:] <= [width_px, height_px]).all()
    assert (crops[:, 2:] - crops[:, :2] == side).all()
    # Crops start on whole pixels: half a pixel of a region may stick out.
    inner = clipped + np.array([1, 1, -1, -1])
    inner = inner[(inner[:, 2:] > inner[:, :2]).all(axis=1)]
    assert not (painted(inner, width_px, height_px) & ~painted(crops, width_px, height_px)).any()
    assert len(np.unique(crops, axis=0)) == len(crops)


@given(SIZES, st.floats(0.2, 1.0))
@settings(deadline=None, max_examples=50)
def test_tiles_cover_the_frame(size, share):
    width_px, height_px = size
    side = crop_side_px(width_px, height_px, share)
    grid = tiles(width_px, height_px, side)
    assert painted(grid, width_px, height_px).all()
    assert len(grid) == np.ceil(width_px / side) * np.ceil(height_px / side)


def test_many_regions_close_together_need_few_crops():
    rng = np.random.default_rng(0)
    corners = rng.uniform(100, 200, (500, 2))
    regions = np.concatenate([corners, corners + 30], axis=1)
    assert len(covering_crops(regions, 640, 480, 240)) <= 4
    inner = regions[is_covered(regions, np.array([[100, 100, 230, 230]]))]
    assert len(covering_crops(inner, 640, 480, 240)) <= 4


def test_it_stops_beyond_the_limit():
    grid = tiles(640, 480, 20)
    assert len(covering_crops(grid, 640, 480, 20)) == len(grid) == 32 * 24
    assert 10 < len(covering_crops(grid, 640, 480, 20, limit=10)) < 15


@pytest.mark.parametrize(
    "size,share,side",
    [((640, 480), 0.5, 240), ((480, 640), 0.5, 240), ((640, 20), 0.5, MIN_SIDE_PX), ((9, 5), 0.5, 5)],
)
def test_the_side_is_a_share_of_the_shorter_side(size, share, side):
    assert crop_side_px(*size, share) == side


def test_the_round_robin_takes_each_tile_once_per_turn():
    grid, turn = tiles(640, 480, 240), RoundRobin()
    taken = [tuple(turn.take(grid, grid[:0], 1)[0]) for _ in range(2 * len(grid))]
    assert taken[: len(grid)] == taken[len(grid) :] and len(set(taken)) == len(grid)
    assert len(turn.take(grid, grid, 3)) == 0, "all lie within crops"
    assert len(turn.take(grid, grid[:-1], 3)) == 1 and len(turn.take(grid, grid[:0], 0)) == 0
