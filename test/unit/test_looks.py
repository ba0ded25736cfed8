"""Where a cascade looks: squares of one size that cover the regions, in the frame, and no more of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_vision.cascade.tiling import MIN_SIDE_PX, RoundRobin, covered, inside, looks_at, side_px, tiles

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
def test_looks_cover_all_regions_and_lie_in_the_frame(size, share, boxes):
    width_px, height_px = size
    side = side_px(width_px, height_px, share)
    regions = np.array(boxes, np.float32).reshape(-1, 4)
    looks = looks_at(regions, width_px, height_px, side)
    assert looks.dtype == np.float32 and looks.shape[1:] == (4,)
    clipped = inside(regions, width_px, height_px)
    assert bool(len(looks)) == bool(len(clipped))
    assert (looks[:, :2] >= 0).all() and (looks[:, 2:] <= [width_px, height_px]).all()
    assert (looks[:, 2:] - looks[:, :2] == side).all()
    # A look begins on a whole pixel: half a pixel of a region may stick out.
    inner = clipped + np.array([1, 1, -1, -1])
    inner = inner[(inner[:, 2:] > inner[:, :2]).all(axis=1)]
    assert not (painted(inner, width_px, height_px) & ~painted(looks, width_px, height_px)).any()
    assert len(np.unique(looks, axis=0)) == len(looks)


@given(SIZES, st.floats(0.2, 1.0))
@settings(deadline=None, max_examples=50)
def test_tiles_cover_the_frame(size, share):
    width_px, height_px = size
    side = side_px(width_px, height_px, share)
    grid = tiles(width_px, height_px, side)
    assert painted(grid, width_px, height_px).all()
    assert len(grid) == np.ceil(width_px / side) * np.ceil(height_px / side)


def test_many_regions_in_one_place_are_one_look():
    rng = np.random.default_rng(0)
    corners = rng.uniform(100, 200, (500, 2))
    regions = np.concatenate([corners, corners + 30], axis=1)
    assert len(looks_at(regions, 640, 480, 240)) <= 4
    held = regions[covered(regions, np.array([[100, 100, 230, 230]]))]
    assert len(looks_at(held, 640, 480, 240)) <= 4


def test_it_goes_no_further_than_the_limit():
    grid = tiles(640, 480, 20)
    assert len(looks_at(grid, 640, 480, 20)) == len(grid) == 32 * 24
    assert 10 < len(looks_at(grid, 640, 480, 20, limit=10)) < 15


@pytest.mark.parametrize(
    "size,share,side",
    [((640, 480), 0.5, 240), ((480, 640), 0.5, 240), ((640, 20), 0.5, MIN_SIDE_PX), ((9, 5), 0.5, 5)],
)
def test_the_side_is_a_share_of_the_shorter_side(size, share, side):
    assert side_px(*size, share) == side


def test_the_round_robin_gives_each_tile_once_a_turn():
    grid, turn = tiles(640, 480, 240), RoundRobin()
    taken = [tuple(turn.take(grid, grid[:0], 1)[0]) for _ in range(2 * len(grid))]
    assert taken[: len(grid)] == taken[len(grid) :] and len(set(taken)) == len(grid)
    assert len(turn.take(grid, grid, 3)) == 0, "all are looked at already"
    assert len(turn.take(grid, grid[:-1], 3)) == 1 and len(turn.take(grid, grid[:0], 0)) == 0
