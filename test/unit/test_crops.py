"""Crops show all that is wanted, and what is found on them is as on the frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import SSD, bundle_or_skip, video_frame

from edge_vision.backends import open_session
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.detect.crops import MAX_SHARE, detect_on, merged, plan_crops
from edge_vision.detect.detector import Detector

SIZE = (1920, 1080)
BOX = st.tuples(st.floats(-300, 2200), st.floats(-300, 1400), st.floats(-20, 400), st.floats(-20, 400))


def boxes_of(rows) -> np.ndarray:
    boxes = np.array(rows, np.float64).reshape(-1, 4)
    return np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1)


def within(box: np.ndarray, crops: np.ndarray) -> bool:
    return bool(((crops[:, :2] <= box[:2]) & (crops[:, 2:] >= box[2:])).all(axis=1).any())


@settings(deadline=None)
@given(
    st.lists(BOX, max_size=60),
    st.integers(1, 8),
    st.sampled_from([1.0, 4 / 3, 0.5]),
    st.sampled_from([64, 300, 640]),
)
def test_each_wanted_box_lies_within_one_of_few_crops(rows, most, aspect, least_px):
    wanted = boxes_of(rows)
    crops = plan_crops(wanted, SIZE, aspect, least_px, most)
    if crops is None:
        return
    assert 1 <= len(crops) <= most and crops.dtype == int
    assert (crops[:, :2] >= 0).all() and (crops[:, 2:] <= SIZE).all()
    sides = crops[:, 2:] - crops[:, :2]
    assert sides.prod(axis=1).sum() <= MAX_SHARE * SIZE[0] * SIZE[1]
    assert (np.diff(sides.prod(axis=1)) >= 0).all(), "the closest look first"
    for width, height in sides:
        assert width >= min(least_px, SIZE[0])
        if width < SIZE[0] and height < SIZE[1]:
            assert abs(width - height * aspect) <= 1 + aspect
    for box in wanted:
        shown = np.clip(box, 0, SIZE * 2)
        if (shown[2:] > shown[:2]).all():
            assert within(shown, crops)


def test_few_wanted_boxes_get_close_crops():
    wanted = np.array([[100, 100, 150, 200], [1700, 900, 1750, 1000]], float)
    two = plan_crops(wanted, SIZE, 1.0, 300, 4)
    assert two.shape == (2, 4) and (two[:, 2:] - two[:, :2]).max() <= 302
    assert plan_crops(wanted, SIZE, 1.0, 300, 1) is None, "one around both is as good as the frame"
    near = np.array([[100, 100, 150, 200], [180, 120, 220, 210]], float)
    assert len(plan_crops(near, SIZE, 1.0, 300, 4)) == 1, "they share one"


BAD = [
    [np.nan, 0, 9, 9],
    [0, 0, np.inf, 9],
    [-90, -90, -9, -9],
    [5000, 0, 6000, 9],
    [9, 9, 9, 9],
    [50, 50, 9, 9],
]


@pytest.mark.parametrize("most", [1, 4])
def test_bad_regions_are_left_out(most):
    bad = np.array(BAD)
    assert plan_crops(bad, SIZE, 1.0, 300, most) is None
    assert plan_crops(np.zeros((0, 4), np.float32), SIZE, 1.0, 300, most) is None
    good = np.array([[500, 500, 560, 590]], float)
    mixed = plan_crops(np.concatenate((bad, good)), SIZE, 1.0, 300, most)
    np.testing.assert_array_equal(mixed, plan_crops(good, SIZE, 1.0, 300, most))
    assert plan_crops(good, SIZE, 1.0, 300, 0) is None


@pytest.mark.parametrize("spread", [200, 5000])
def test_five_hundred_regions(spread):
    low = np.random.default_rng(0).uniform(0, spread, (500, 2))
    wanted = np.concatenate((low, low + 20), axis=1)
    crops = plan_crops(wanted, SIZE, 1.0, 300, 4)
    if spread == 5000:
        assert crops is None
    else:
        assert len(crops) <= 4 and all(within(box, crops) for box in wanted)


def test_a_frame_smaller_than_a_crop():
    assert plan_crops(np.array([[2.0, 2, 30, 30]]), (100, 80), 1.0, 300, 4) is None


@pytest.fixture(scope="module")
def detector():
    bundle = bundle_or_skip(SSD)
    session, _ = open_session(bundle, "onnxruntime")
    yield Detector.from_bundle(bundle, session)
    session.close()


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "mono16"])
def test_boxes_come_back_in_source_pixels(detector, encoding):
    """The street within a larger picture: a crop of just the street finds just what is on it."""
    street = video_frame("vtest.avi", 200).image
    if encoding == "rgb8":
        street = np.ascontiguousarray(street[..., ::-1])
    elif encoding == "mono16":
        street = street[..., 1].astype(np.uint16) * 257
    canvas = np.full((1200, 1600, *street.shape[2:]), 128, street.dtype)
    canvas[300:876, 500:1268] = street
    crops = np.array([[500, 300, 1268, 876]])
    looks, parts = detect_on(detector.detect, Frame(canvas, 7, "cam", encoding), crops)
    alone = detector.detect(Frame(street, 7, "cam", encoding))
    # What the street's own border cuts has a border of the crop beside it here.
    inner = (alone.xyxy_px[:, 2] < 755) & (alone.xyxy_px[:, 3] < 565)
    inner &= (alone.xyxy_px[:, :2] > 13).all(axis=1)
    expected = alone.xyxy_px[inner] + np.array([500, 300, 500, 300], np.float32)
    assert len(expected) >= 4
    np.testing.assert_allclose(looks[0].xyxy_px, expected, atol=0.01)
    np.testing.assert_allclose(looks[0].scores, alone.scores[inner], atol=1e-5)
    assert len(parts) == np.count_nonzero(~inner)


def found(*rows, class_id=0) -> Detections:
    rows = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(rows[:, :4], rows[:, 4], np.full(len(rows), class_id, np.int32))


def looking(answers: list[Detections]):
    answers = list(answers)
    return lambda frame: answers.pop(0)


FRAME = Frame(np.zeros((400, 600, 3), np.uint8), 1, "cam")


def test_a_box_that_a_border_cuts_is_part_of_a_whole_one_or_asks_for_more():
    crops = np.array([[0, 100, 200, 300], [150, 100, 350, 300]])
    left, right = found((140, 20, 200, 80, 0.9)), found((-0.0, 20, 90, 80, 0.8))
    # The left crop sees a part of what the right one sees as a whole.
    whole = found((0 + 5, 20, 90, 80, 0.8))
    looks, parts = detect_on(looking([left, whole]), FRAME, crops)
    assert len(parts) == 0 and [len(one) for one in looks] == [0, 1]
    assert looks[1].xyxy_px.tolist() == [[155, 120, 240, 180]]
    # Nobody sees it as a whole.
    looks, parts = detect_on(looking([left, right]), FRAME, crops)
    assert len(parts) == 2 and [len(one) for one in looks] == [0, 0]
    # Another class does not stand for it.
    looks, parts = detect_on(looking([left, found((5, 20, 90, 80, 0.8), class_id=2)]), FRAME, crops)
    assert len(parts) == 1


def test_the_frames_own_border_cuts_nothing():
    crops = np.array([[0, 0, 200, 200]])
    looks, parts = detect_on(looking([found((0, 0, 90, 80, 0.9))]), FRAME, crops)
    assert len(parts) == 0 and len(looks[0]) == 1


def test_each_object_once_as_the_closest_look_saw_it():
    close = found((100, 100, 150, 200, 0.6), (160, 100, 200, 200, 0.5))
    far = found((95, 95, 155, 205, 0.9), (400, 100, 450, 200, 0.7))
    both = merged([close, far], 100)
    assert both.scores.tolist() == pytest.approx([0.7, 0.6, 0.5])
    assert both.xyxy_px[:, 0].tolist() == [400, 100, 160]
    assert len(merged([close, far], 2)) == 2
    other = merged([close, found((95, 95, 155, 205, 0.9), class_id=3)], 100)
    assert len(other) == 3, "another class is another object"
    # Neighbours within one look are what the detector says they are.
    crowd = found((100, 100, 150, 200, 0.6), (112, 100, 162, 200, 0.5))
    assert len(merged([crowd], 100)) == 2
    assert len(merged([], 100)) == 0
