"""Known objects that look otherwise, on real frames: who has left is doubted, a change of light is not."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import street_with_and_without_people

from edge_vision.core.frame import Frame
from edge_vision.core.geometry.homography import IDENTITY
from edge_vision.gate.appearance_check import MAX_PATIENCE, MAX_WAITING, AppearanceCheck, looks_otherwise

MS = 1_000_000
NONE = np.zeros((0, 4))
# On frame 200 of vtest.avi at luma size, half of the source: people who walk, cars that are parked.
WALKERS = np.array([[109, 98, 125, 134], [308, 132, 324, 186], [40, 78, 56, 108], [244, 72, 257, 106]], float)
PARKED = np.array([[320, 21, 359, 49], [362, 24, 384, 48]], float)
NOISE = 1.0


@cache
def lumas() -> tuple[np.ndarray, np.ndarray]:
    """A street with people, and the same street without."""
    full, empty = street_with_and_without_people()
    return Frame(full, 0, "").small_gray(320), Frame(empty, 0, "").small_gray(320)


def lit(luma: np.ndarray, gain: float, offset: float) -> np.ndarray:
    noise = np.random.default_rng(3).normal(0, NOISE, luma.shape)
    return np.clip(luma * gain + offset + noise, 0, 255).astype(np.uint8)


def shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def known(luma: np.ndarray, boxes: np.ndarray) -> AppearanceCheck:
    one = AppearanceCheck()
    one.passed(1, luma, NONE)
    one.found(1, boxes, 0)
    return one


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (0.6, 0.0), (1.3, -20.0), (0.8, 35.0)])
def test_who_left_looks_otherwise_and_what_is_parked_does_not_in_any_light(gain, offset):
    full, empty = lumas()
    now = lit(empty, gain, offset)
    assert all(looks_otherwise(full, now, IDENTITY, box, NOISE) for box in WALKERS)
    assert not any(looks_otherwise(full, now, IDENTITY, box, NOISE) for box in PARKED)
    assert not any(looks_otherwise(full, lit(full, gain, offset), IDENTITY, box, NOISE) for box in WALKERS)


@pytest.mark.parametrize("motion", [shift(-17, 4), shift(-6.4, 2.6), np.diag([1.1, 1.1, 1.0])])
def test_a_camera_that_moved_is_followed(motion):
    full, empty = lumas()
    size = full.shape[::-1]
    still_there, gone = (cv2.warpPerspective(one, motion, size) for one in (full, empty))
    for box in WALKERS[[0, 2, 3]]:
        assert looks_otherwise(full, gone, motion, box, NOISE)
        assert not looks_otherwise(full, still_there, motion, box, NOISE)
        # The wrong place does look otherwise: so the motion is what makes the difference.
        assert looks_otherwise(full, still_there, IDENTITY, box, NOISE)


def test_nothing_is_claimed_of_what_is_out_of_the_picture_or_has_no_contrast():
    full, _ = lumas()
    assert not looks_otherwise(full, full, shift(500, 0), WALKERS[0], NOISE)
    grey = np.full_like(full, 90)
    noisy = [lit(grey, 1.0, 0.0), np.random.default_rng(9).normal(90, NOISE, full.shape).astype(np.uint8)]
    assert not looks_otherwise(noisy[0], noisy[1], IDENTITY, WALKERS[0], NOISE)


def test_the_interval_and_the_order():
    full, empty = lumas()
    one = known(full, np.concatenate([WALKERS, PARKED]))
    assert len(one.changed(empty, NOISE, 499 * MS, 500.0)) == 0, "too soon"
    np.testing.assert_array_equal(one.changed(empty, NOISE, 500 * MS, 500.0), WALKERS)
    assert len(one.changed(empty, NOISE, 999 * MS, 500.0)) == 0, "the detector is asked once an interval"
    assert len(one.changed(empty, NOISE, 1000 * MS, 500.0)) == len(WALKERS), "but again until it has looked"
    one.passed(2, empty, WALKERS)
    one.found(2, PARKED, 1010 * MS)
    assert len(one.changed(empty, NOISE, 9999 * MS, 500.0)) == 0
    # Two looks at six objects, one at the two that are left.
    assert one.status() == {"recheck.looks": 14, "recheck.doubted": 8, "recheck.confirmed": 0}


def test_results_that_come_late_belong_to_their_own_frame():
    full, empty = lumas()
    one = AppearanceCheck()
    one.passed(1, full, NONE)
    one.move(shift(-6, 0))
    one.passed(2, full, NONE)  # Superseded: no result.
    one.move(shift(-4, 2))
    one.found(1, WALKERS[:1], 0)
    gone = cv2.warpPerspective(empty, shift(-10, 2), full.shape[::-1])
    there = cv2.warpPerspective(full, shift(-10, 2), full.shape[::-1])
    assert len(one.changed(there, NOISE, 500 * MS, 500.0)) == 0
    np.testing.assert_allclose(
        one.changed(gone, NOISE, 1000 * MS, 500.0), WALKERS[:1] + np.array([-10, 2, -10, 2]), atol=1e-9
    )
    one.found(7, PARKED, 0)  # Of a frame that nobody passed.
    assert len(one.changed(gone, NOISE, 1500 * MS, 500.0)) == 1


def test_what_the_detector_confirms_is_asked_more_seldom_and_at_once_again_when_it_was_right():
    full, empty = lumas()
    one, now_ns, asked = known(full, WALKERS[:1]), 0, []
    for n in range(2, 9):
        # A sign that shows something else each time, and that the detector still sees.
        before_ns = now_ns
        while not len(doubted := one.changed(empty, NOISE, now_ns, 100.0)):
            now_ns += 10 * MS
        asked.append(round((now_ns - before_ns) / (100 * MS)))
        one.passed(n, full, doubted)
        one.found(n, WALKERS[:1] + 1.0, now_ns)
    assert asked == [1, 2, 4, 8, MAX_PATIENCE, MAX_PATIENCE, MAX_PATIENCE]
    one.passed(9, full, one.changed(empty, NOISE, now_ns + 10**12, 100.0))
    one.found(9, PARKED, now_ns)
    assert one._patience == 1


def test_after_an_unknown_motion_nothing_is_known():
    full, empty = lumas()
    one = known(full, WALKERS)
    one.move(None)
    assert len(one.changed(empty, NOISE, 10**12, 500.0)) == 0


BAD = [
    [np.nan, 0, 10, 10],
    [0, 0, np.inf, 10],
    [-900, -900, -800, -800],
    [5000, 5000, 6000, 6000],
    [50, 50, 50, 50],
    [60, 60, 40, 40],
    [-1e9, -1e9, 1e9, 1e9],
    [0, 0, 1, 1],
]


@pytest.mark.parametrize("motion", [IDENTITY, shift(3, 3), np.zeros((3, 3)), np.full((3, 3), np.nan)])
def test_bad_boxes_and_motions_raise_nothing(motion):
    full, empty = lumas()
    rng = np.random.default_rng(0)
    many = rng.uniform(-100, 500, (500, 4))
    one = AppearanceCheck()
    one.passed(1, full, NONE)
    one.move(motion)
    one.found(1, np.concatenate([np.array(BAD), many, WALKERS]), 0)
    told = one.changed(empty, NOISE, 10**12, 1.0)
    assert len(told) <= len(BAD) + 500 + len(WALKERS)
    if motion is IDENTITY:
        assert len(told) >= len(WALKERS) and np.isfinite(told).all()


def test_the_memory_has_a_limit():
    one, luma = AppearanceCheck(), np.zeros((48, 64), np.uint8)
    for n in range(10 * MAX_WAITING):
        one.passed(n, luma, NONE)
    assert len(one._waiting) == MAX_WAITING


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(5, 60), st.integers(5, 60))
def test_a_picture_never_differs_from_itself(seed, width_px, height_px):
    rng = np.random.default_rng(seed)
    luma = rng.integers(0, 256, (height_px, width_px), dtype=np.uint8)
    box = np.sort(rng.uniform(-10, 70, (2, 2)), axis=0).ravel()
    assert not looks_otherwise(luma, luma, IDENTITY, box, NOISE)
