"""The appearance check on real frames: objects that have left are reported, a change of light is not."""

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
from edge_vision.gate.appearance_check import (
    MAX_INTERVAL_FACTOR,
    MAX_PENDING,
    AppearanceCheck,
    appearance_changed,
)

MS = 1_000_000
NONE = np.zeros((0, 4))
# On frame 200 of vtest.avi at luma size, half of the source: walkers and parked cars.
WALKERS = np.array([[109, 98, 125, 134], [308, 132, 324, 186], [40, 78, 56, 108], [244, 72, 257, 106]], float)
PARKED = np.array([[320, 21, 359, 49], [362, 24, 384, 48]], float)
NOISE = 1.0


@cache
def lumas() -> tuple[np.ndarray, np.ndarray]:
    """A street with people, and the same street without them."""
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
def test_a_walker_who_left_changes_the_appearance_and_light_does_not(gain, offset):
    full, empty = lumas()
    now = lit(empty, gain, offset)
    assert all(appearance_changed(full, now, IDENTITY, box, NOISE) for box in WALKERS)
    assert not any(appearance_changed(full, now, IDENTITY, box, NOISE) for box in PARKED)
    assert not any(appearance_changed(full, lit(full, gain, offset), IDENTITY, box, NOISE) for box in WALKERS)


@pytest.mark.parametrize("motion", [shift(-17, 4), shift(-6.4, 2.6), np.diag([1.1, 1.1, 1.0])])
def test_the_motion_of_the_camera_is_compensated(motion):
    full, empty = lumas()
    size = full.shape[::-1]
    still_there, gone = (cv2.warpPerspective(one, motion, size) for one in (full, empty))
    for box in WALKERS[[0, 2, 3]]:
        assert appearance_changed(full, gone, motion, box, NOISE)
        assert not appearance_changed(full, still_there, motion, box, NOISE)
        # Without the motion the appearance differs: compensation makes the difference.
        assert appearance_changed(full, still_there, IDENTITY, box, NOISE)


def test_patches_outside_the_image_or_without_contrast_are_unchanged():
    full, _ = lumas()
    assert not appearance_changed(full, full, shift(500, 0), WALKERS[0], NOISE)
    grey = np.full_like(full, 90)
    noisy = [lit(grey, 1.0, 0.0), np.random.default_rng(9).normal(90, NOISE, full.shape).astype(np.uint8)]
    assert not appearance_changed(noisy[0], noisy[1], IDENTITY, WALKERS[0], NOISE)


def test_objects_are_compared_once_per_interval_until_the_next_result():
    full, empty = lumas()
    one = known(full, np.concatenate([WALKERS, PARKED]))
    assert len(one.changed(empty, NOISE, 499 * MS, 500.0)) == 0, "too soon"
    np.testing.assert_array_equal(one.changed(empty, NOISE, 500 * MS, 500.0), WALKERS)
    assert len(one.changed(empty, NOISE, 999 * MS, 500.0)) == 0, "once per interval"
    assert len(one.changed(empty, NOISE, 1000 * MS, 500.0)) == len(WALKERS), (
        "again, until the detector has a result"
    )
    one.passed(2, empty, WALKERS)
    one.found(2, PARKED, 1010 * MS)
    assert len(one.changed(empty, NOISE, 9999 * MS, 500.0)) == 0
    # Six objects twice, then the two that remain.
    expected = {"compared": 14, "changed": 8, "still_present": 0}
    assert one.status() == {f"appearance_check.{key}": value for key, value in expected.items()}


def test_late_results_belong_to_their_own_frame():
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
    one.found(7, PARKED, 0)  # Of an unknown frame.
    assert len(one.changed(gone, NOISE, 1500 * MS, 500.0)) == 1


def test_the_interval_doubles_while_suspected_objects_are_still_present():
    full, empty = lumas()
    one, now_ns, intervals = known(full, WALKERS[:1]), 0, []
    for n in range(2, 9):
        # A sign with changing content, which the detector still finds.
        before_ns = now_ns
        while not len(suspected := one.changed(empty, NOISE, now_ns, 100.0)):
            now_ns += 10 * MS
        intervals.append(round((now_ns - before_ns) / (100 * MS)))
        one.passed(n, full, suspected)
        one.found(n, WALKERS[:1] + 1.0, now_ns)
    assert intervals == [1, 2, 4, 8, MAX_INTERVAL_FACTOR, MAX_INTERVAL_FACTOR, MAX_INTERVAL_FACTOR]
    one.passed(9, full, one.changed(empty, NOISE, now_ns + 10**12, 100.0))
    one.found(9, PARKED, now_ns)
    assert len(one.changed(empty, NOISE, now_ns + 99 * MS, 100.0)) == 0
    one.passed(10, full, NONE)
    one.found(10, WALKERS[:1], now_ns)
    assert len(one.changed(empty, NOISE, now_ns + 100 * MS, 100.0)) == 1, "back to the first interval"


def test_an_unknown_motion_clears_the_objects():
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
def test_invalid_boxes_and_motions_do_not_raise(motion):
    full, empty = lumas()
    rng = np.random.default_rng(0)
    many = rng.uniform(-100, 500, (500, 4))
    one = AppearanceCheck()
    one.passed(1, full, NONE)
    one.move(motion)
    one.found(1, np.concatenate([np.array(BAD), many, WALKERS]), 0)
    changed = one.changed(empty, NOISE, 10**12, 1.0)
    assert len(changed) <= len(BAD) + 500 + len(WALKERS)
    if motion is IDENTITY:
        assert len(changed) >= len(WALKERS) and np.isfinite(changed).all()


def test_frames_without_a_result_are_dropped_after_a_while():
    full, empty = lumas()
    one = AppearanceCheck()
    for n in range(10 * MAX_PENDING):
        one.passed(n, full, NONE)
    one.found(8 * MAX_PENDING, WALKERS, 0)
    assert len(one.changed(empty, NOISE, 10**12, 1.0)) == 0
    one.found(9 * MAX_PENDING + 1, WALKERS, 0)
    assert len(one.changed(empty, NOISE, 10**12, 1.0)) == len(WALKERS)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(5, 60), st.integers(5, 60))
def test_an_image_never_differs_from_itself(seed, width_px, height_px):
    rng = np.random.default_rng(seed)
    luma = rng.integers(0, 256, (height_px, width_px), dtype=np.uint8)
    box = np.sort(rng.uniform(-10, 70, (2, 2)), axis=0).ravel()
    assert not appearance_changed(luma, luma, IDENTITY, box, NOISE)
