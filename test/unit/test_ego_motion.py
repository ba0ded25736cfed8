"""Camera motion against the exact one: a real image warped by known poses."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from motion_cases import HEIGHT_PX, WIDTH_PX, luma, luma_motion, picture, pose

from edge_vision.core.geometry.homography import IDENTITY
from edge_vision.gate.motion.ego_motion import EgoReference, largest_shift_px

START = pose(500, 420)
SHAPE = (HEIGHT_PX // 2, WIDTH_PX // 2)


def worst_px(found: np.ndarray, true: np.ndarray) -> float:
    """The largest error of a motion within the image, in luma pixels."""
    return largest_shift_px(np.linalg.inv(true) @ found, SHAPE)


@pytest.mark.parametrize(
    "to",
    [
        pose(500, 420),
        pose(501.3, 419.4),
        pose(520, 424),
        pose(500, 420, zoom=1.1),
        pose(500, 420, zoom=0.92),
        pose(500, 420, turn=0.05),
        pose(512, 410, zoom=1.05, turn=-0.03),
    ],
    ids=["none", "sub-pixel", "pan", "zoom in", "zoom out", "roll", "all"],
)
def test_motion_is_accurate_to_a_quarter_pixel(to):
    found = EgoReference(luma(picture(START, 1))).motion_to(luma(picture(to, 2)), IDENTITY, sure=False)
    assert found is not None and found.inliers >= 10
    assert worst_px(found.transform, luma_motion(START, to)) < 0.25


def test_a_homography_is_fitted_if_the_corners_support_it():
    tilt = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.2e-4, 0.5e-4, 1.0]])
    to = tilt @ START
    found = EgoReference(luma(picture(START, 1))).motion_to(luma(picture(to, 2)), IDENTITY, sure=False)
    assert found is not None and abs(found.transform[2, :2]).sum() > 0
    true = luma_motion(START, to)
    centre = np.array([[[80.0, 90.0]], [[160.0, 90.0]], [[240.0, 60.0]]])
    off = cv2.perspectiveTransform(centre, found.transform) - cv2.perspectiveTransform(centre, true)
    assert np.abs(off).max() < 0.4


def test_a_guess_helps_with_a_large_motion():
    to = pose(500 + 90, 420)
    reference, now = EgoReference(luma(picture(START, 1))), luma(picture(to, 2))
    true = luma_motion(START, to)
    guess = true @ np.array([[1, 0, 2.0], [0, 1, -1.0], [0, 0, 1]])
    found = reference.motion_to(now, guess, sure=True)
    assert found is not None and worst_px(found.transform, true) < 0.25


def test_a_moving_object_is_an_outlier():
    before = picture(START, 1, box=(200, 100, 150, 150))
    after = picture(pose(506, 420), 2, box=(230, 110, 150, 150))
    found = EgoReference(luma(before)).motion_to(luma(after), IDENTITY, sure=False)
    assert found is not None
    assert worst_px(found.transform, luma_motion(START, pose(506, 420))) < 0.3


@pytest.mark.parametrize(
    "after",
    [np.full(SHAPE, 90, np.uint8), np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)],
    ids=["blank", "noise"],
)
def test_an_image_without_common_corners_gives_none(after):
    assert EgoReference(luma(picture(START, 1))).motion_to(after, IDENTITY, sure=False) is None


def test_another_scene_is_not_aligned():
    other = luma(picture(pose(850, 650), 1))
    assert EgoReference(luma(picture(pose(330, 190), 1))).motion_to(other, IDENTITY, sure=False) is None


def test_a_reference_without_corners_gives_none():
    blank = EgoReference(np.full(SHAPE, 90, np.uint8))
    assert len(blank.corners) == 0
    assert blank.motion_to(luma(picture(START)), IDENTITY, sure=False) is None


def test_concentrated_corners_are_not_trusted():
    def patch(x: int) -> np.ndarray:
        image = np.full(SHAPE, 90, np.uint8)
        image[20:60, x : x + 40] = luma(picture(START))[100:140, 100:140]
        return image

    assert EgoReference(patch(30)).motion_to(patch(33), IDENTITY, sure=False) is None


def test_largest_shift_is_that_of_an_image_corner():
    assert largest_shift_px(IDENTITY, SHAPE) == 0.0
    assert largest_shift_px(np.array([[1, 0, 3.0], [0, 1, 4.0], [0, 0, 1]]), SHAPE) == pytest.approx(5.0)
    assert largest_shift_px(np.diag([1.1, 1.1, 1.0]), SHAPE) == pytest.approx(0.1 * np.hypot(320, 180))
