"""Light, noise and image difference, against known values."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motion_cases import luma, picture, pose

from edge_vision.gate.motion.image_diff import (
    MAX_REGIONS,
    beyond,
    changed_mask,
    envelope,
    mask_regions,
    noise_sigma,
)
from edge_vision.gate.motion.light import NO_CHANGE, LightFit, fit_light

AT = pose(500, 420)


@pytest.mark.parametrize("gain,offset", [(1.0, 0.0), (0.7, 0.0), (1.25, -8.0), (1.0, 25.0), (0.5, 10.0)])
def test_gain_and_offset_are_recovered(gain, offset):
    before, after = luma(picture(AT, 1)), luma(picture(AT, 2, gain=gain, offset=offset))
    light = fit_light(before, after, None)
    for grey in (60.0, 120.0):
        assert light.gain * grey + light.offset == pytest.approx(gain * grey + offset, abs=1.5)


def test_a_bright_object_is_an_outlier_of_the_light():
    before = luma(picture(AT, 1))
    after = before.copy()
    after[40:120, 60:160] = 255
    assert fit_light(before, after, None).step < 1.5


def test_only_valid_pixels_are_fitted():
    before, after = luma(picture(AT, 1)), luma(picture(AT, 2))
    before[:, :200] = 0
    valid = np.zeros(before.shape, np.uint8)
    valid[:, 200:] = 255
    assert fit_light(before, after, valid).step < 1.5
    assert fit_light(before, after, np.zeros_like(valid)) == NO_CHANGE


@given(
    st.floats(0.3, 3.0), st.floats(-60, 60), st.floats(0.3, 3.0), st.floats(-60, 60), st.floats(0.0, 255.0)
)
def test_relative_light_composes_with_the_other(gain, offset, other_gain, other_offset, grey):
    now, then = LightFit(gain, offset), LightFit(other_gain, other_offset)
    between = now.relative_to(then)
    was = then.gain * grey + then.offset
    assert between.gain * was + between.offset == pytest.approx(gain * grey + offset, abs=1e-6)


def test_light_can_be_undone():
    image = luma(picture(AT))
    light = LightFit(0.8, 12.0)
    assert np.abs(light.undone(light.applied(image)).astype(int) - image).max() <= 1
    assert NO_CHANGE.applied(image) is image


@settings(max_examples=30, deadline=None)
@given(st.floats(0.3, 20.0), st.integers(0, 1000))
def test_noise_is_measured_within_15_percent(sigma, seed):
    difference = np.abs(np.rint(np.random.default_rng(seed).normal(0.0, sigma, (180, 320))))
    measured = noise_sigma(np.clip(difference, 0, 255).astype(np.uint8), None)
    assert measured == pytest.approx(sigma, rel=0.15, abs=0.12)


def test_noise_ignores_objects_and_invalid_pixels():
    difference = np.abs(np.random.default_rng(0).normal(0.0, 3.0, (180, 320))).astype(np.uint8)
    plain = noise_sigma(difference, None)
    difference[:60, :100] = 200
    assert noise_sigma(difference, None) == pytest.approx(plain, rel=0.35)
    valid = np.full((180, 320), 255, np.uint8)
    valid[:60, :100] = 0
    assert noise_sigma(difference, valid) == pytest.approx(plain, rel=0.1)
    assert noise_sigma(difference, np.zeros_like(valid)) == 0.0


def test_a_sub_pixel_shift_stays_within_the_envelope():
    image = luma(picture(AT, noise=0.0))
    shifted = cv2.warpAffine(image, np.float32([[1, 0, 0.5], [0, 1, -0.5]]), (320, 180))
    inner = (slice(4, -4), slice(4, -4))
    assert cv2.absdiff(image, shifted)[inner].max() > 20
    assert beyond(*envelope(image), shifted)[inner].max() <= 2


def test_lines_and_specks_are_removed_and_objects_are_not():
    difference = np.zeros((180, 320), np.uint8)
    difference[50, :] = 200
    difference[100:102, 200] = 200
    assert changed_mask(difference, 10.0).max() == 0
    assert np.count_nonzero(changed_mask(difference, 10.0, opened=False)) > 300
    difference[120:130, 30:40] = 11
    assert np.count_nonzero(changed_mask(difference, 10.0)) == 100
    assert changed_mask(difference, 11.0).max() == 0


def test_regions_contain_their_blobs_in_source_pixels():
    mask = np.zeros((180, 320), np.uint8)
    mask[20:30, 40:60] = 255
    mask[100:150, 300:320] = 255
    regions = mask_regions(mask, 1280, 720)
    assert regions.shape == (2, 4) and regions.dtype == np.float32
    ((left, top, right, bottom),) = regions[regions[:, 0] < 600]
    assert 136 <= left <= 160 and 60 <= top <= 80 and 240 <= right <= 256 and 120 <= bottom <= 136
    assert regions[:, 2].max() == 1280 and len(mask_regions(np.zeros_like(mask), 1280, 720)) == 0


def test_too_many_blobs_become_one_region():
    mask = np.zeros((180, 320), np.uint8)
    mask[10:170:20, 10:300:20] = 255
    assert MAX_REGIONS < 120
    ((left, top, right, bottom),) = mask_regions(mask, 320, 180)
    assert left <= 10 and top <= 10 and right >= 290 and bottom >= 150
