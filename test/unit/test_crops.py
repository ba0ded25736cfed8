"""Crops cover all wanted boxes, and give the same detections as the frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import SSD, bundle_or_skip, video_frame

from edge_vision.backends import open_session
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.geometry.boxes import MAX_CANDIDATES, overlaps
from edge_vision.detect import crops
from edge_vision.detect.crops import MAX_SHARE, detect_on_crops, merge_detections, plan_crops
from edge_vision.detect.detector import Detector

SIZE = (1920, 1080)
BOX = st.tuples(st.floats(-300, 2200), st.floats(-300, 1400), st.floats(-20, 400), st.floats(-20, 400))


def boxes_of(rows) -> np.ndarray:
    boxes = np.array(rows, np.float64).reshape(-1, 4)
    return np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1)


def is_inside(box: np.ndarray, crops: np.ndarray) -> bool:
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
    assert (np.diff(sides.prod(axis=1)) >= 0).all(), "the smallest crop first"
    for width, height in sides:
        assert width >= min(least_px, SIZE[0])
        if width < SIZE[0] and height < SIZE[1]:
            assert abs(width - height * aspect) <= 1 + aspect
    for box in wanted:
        shown = np.clip(box, 0, SIZE * 2)
        if (shown[2:] > shown[:2]).all():
            assert is_inside(shown, crops)


def test_few_wanted_boxes_get_small_crops():
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
def test_invalid_regions_are_ignored(most):
    bad = np.array(BAD)
    assert plan_crops(bad, SIZE, 1.0, 300, most) is None
    assert plan_crops(np.zeros((0, 4), np.float32), SIZE, 1.0, 300, most) is None
    good = np.array([[500, 500, 560, 590]], float)
    mixed = plan_crops(np.concatenate((bad, good)), SIZE, 1.0, 300, most)
    np.testing.assert_array_equal(mixed, plan_crops(good, SIZE, 1.0, 300, most))
    assert plan_crops(good, SIZE, 1.0, 300, 0) is None


@pytest.mark.parametrize("spread", [200, 5000])
def test_five_hundred_regions_give_few_crops_or_none(spread):
    low = np.random.default_rng(0).uniform(0, spread, (500, 2))
    wanted = np.concatenate((low, low + 20), axis=1)
    crops = plan_crops(wanted, SIZE, 1.0, 300, 4)
    if spread == 5000:
        assert crops is None
    else:
        assert len(crops) <= 4 and all(is_inside(box, crops) for box in wanted)


def test_a_frame_smaller_than_a_crop_gets_none():
    assert plan_crops(np.array([[2.0, 2, 30, 30]]), (100, 80), 1.0, 300, 4) is None


@pytest.fixture(scope="module")
def detector():
    bundle = bundle_or_skip(SSD)
    session, _ = open_session(bundle, "onnxruntime")
    yield Detector.from_bundle(bundle, session)
    session.close()


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "mono16"])
def test_boxes_are_in_source_pixels(detector, encoding):
    """A crop of the street within a larger image gives the detections of the street alone."""
    street = video_frame("vtest.avi", 200).image
    if encoding == "rgb8":
        street = np.ascontiguousarray(street[..., ::-1])
    elif encoding == "mono16":
        street = street[..., 1].astype(np.uint16) * 257
    canvas = np.full((1200, 1600, *street.shape[2:]), 128, street.dtype)
    canvas[300:876, 500:1268] = street
    crops = np.array([[500, 300, 1268, 876]])
    passes, cut = detect_on_crops(
        lambda part: detector.detect(part).detections, Frame(canvas, 7, "cam", encoding), crops
    )
    alone = detector.detect(Frame(street, 7, "cam", encoding)).detections
    # Objects at the street's own border are cut by the crop's border here.
    inner = (alone.xyxy_px[:, 2] < 755) & (alone.xyxy_px[:, 3] < 565)
    inner &= (alone.xyxy_px[:, :2] > 13).all(axis=1)
    expected = alone.xyxy_px[inner] + np.array([500, 300, 500, 300], np.float32)
    assert len(expected) >= 4
    np.testing.assert_allclose(passes[0].xyxy_px, expected, atol=0.01)
    np.testing.assert_allclose(passes[0].scores, alone.scores[inner], atol=1e-5)
    assert len(cut) == np.count_nonzero(~inner)


def found(*rows, class_id=0) -> Detections:
    rows = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(rows[:, :4], rows[:, 4], np.full(len(rows), class_id, np.int32))


def detector_that_returns(answers: list[Detections]):
    answers = list(answers)
    return lambda frame: answers.pop(0)


FRAME = Frame(np.zeros((400, 600, 3), np.uint8), 1, "cam")


def test_a_cut_box_is_covered_by_a_whole_one_or_needs_another_crop():
    crops = np.array([[0, 100, 200, 300], [150, 100, 350, 300]])
    left, right = found((140, 20, 200, 80, 0.9)), found((-0.0, 20, 90, 80, 0.8))
    # The left crop shows a part of the object that the right one shows whole.
    whole = found((0 + 5, 20, 90, 80, 0.8))
    passes, cut = detect_on_crops(detector_that_returns([left, whole]), FRAME, crops)
    assert len(cut) == 0 and [len(one) for one in passes] == [0, 1]
    assert passes[1].xyxy_px.tolist() == [[155, 120, 240, 180]]
    # Neither crop shows it whole.
    passes, cut = detect_on_crops(detector_that_returns([left, right]), FRAME, crops)
    assert len(cut) == 2 and [len(one) for one in passes] == [0, 0]
    # A box of another class does not cover it.
    passes, cut = detect_on_crops(
        detector_that_returns([left, found((5, 20, 90, 80, 0.8), class_id=2)]), FRAME, crops
    )
    assert len(cut) == 1


def test_a_box_at_the_frames_own_border_is_whole():
    crops = np.array([[0, 0, 200, 200]])
    passes, cut = detect_on_crops(detector_that_returns([found((0, 0, 90, 80, 0.9))]), FRAME, crops)
    assert len(cut) == 0 and len(passes[0]) == 1


def test_duplicates_are_merged_into_the_box_of_the_smallest_crop():
    close = found((100, 100, 150, 200, 0.6), (160, 100, 200, 200, 0.5))
    far = found((95, 95, 155, 205, 0.9), (400, 100, 450, 200, 0.7))
    both = merge_detections([close, far], 100)
    assert both.scores.tolist() == pytest.approx([0.7, 0.6, 0.5])
    assert both.xyxy_px[:, 0].tolist() == [400, 100, 160]
    assert len(merge_detections([close, far], 2)) == 2
    other = merge_detections([close, found((95, 95, 155, 205, 0.9), class_id=3)], 100)
    assert len(other) == 3, "another class is another object"
    # Overlapping boxes of one pass are different objects.
    crowd = found((100, 100, 150, 200, 0.6), (112, 100, 162, 200, 0.5))
    assert len(merge_detections([crowd], 100)) == 2
    assert len(merge_detections([], 100)) == 0


def test_of_many_detections_in_each_pass_the_best_are_merged(monkeypatch):
    compared = []

    def counted(xyxy, class_ids, first, second, iou_threshold):
        compared.append(len(second))
        return overlaps(xyxy, class_ids, first, second, iou_threshold)

    monkeypatch.setattr(crops, "overlaps", counted)
    rows = [(20 * i, 0, 20 * i + 10, 10, 1 - i / 2000) for i in range(1000)]
    other = [(left, 100, right, 110, score) for left, _, right, _, score in rows]
    merged = merge_detections([found(*rows), found(*other)] * 4, 1000)
    assert sum(compared) <= MAX_CANDIDATES and merged.scores[0] == 1.0
    assert len(merged) == 2 * (MAX_CANDIDATES // 8)
