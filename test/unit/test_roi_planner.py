"""When crops stand for the frame, and that what they give is no less than the frame gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import SSD, bundle_or_skip, street_with_and_without_people

from edge_vision.backends import open_session
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.detect.detector import Detector
from edge_vision.detect.roi_planner import RoiConfig, RoiInput, RoiPlan, RoiPlanner

MS = 1_000_000
SIZE, MODEL = (1920, 1080), (300, 300)
NONE = np.zeros((0, 4), np.float32)
HERE = np.array([[500, 500, 560, 620]], np.float32)
FAR = np.array([[1700, 80, 1760, 200]], np.float32)
STILL = np.eye(3)
PICTURE = Frame(np.zeros((SIZE[1], SIZE[0], 3), np.uint8), 10**9, "cam")


def scene(regions=HERE, known=NONE, since=STILL, size=SIZE) -> RoiInput:
    return RoiInput(size, regions, known, since)


def nothing(frame: Frame) -> Detections:
    return Detections.empty()


def looks(mode="crops", **config) -> RoiPlanner:
    """Ones that have looked at a whole frame."""
    one = RoiPlanner(RoiConfig(mode, **config))
    one.carry_out(one.choose(scene(), MODEL, 0), nothing, PICTURE, 100, 0)
    return one


def shift(x: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, 0], [0, 0, 1]], float)


def test_the_first_look_is_at_the_whole_frame_and_then_at_what_is_new():
    one = RoiPlanner(RoiConfig("crops"))
    first = one.choose(scene(), MODEL, 0)
    assert first.whole and first.reason == "first" and len(first.crops) == 1
    one.carry_out(first, nothing, PICTURE, 100, 0)
    then = one.choose(scene(), MODEL, 10 * MS)
    assert not then.whole and then.runs == 1
    assert (then.crops[0, :2] <= HERE[0, :2]).all() and (then.crops[0, 2:] >= HERE[0, 2:]).all()
    one.reset()
    assert one.choose(scene(), MODEL, 20 * MS).reason == "first"


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("no_regions", scene(NONE, HERE)),  # A refresh, an audit, a detector without a gate.
        ("camera_unknown", scene(since=None)),
        ("camera_moved", scene(since=shift(120.0))),
        ("camera_moved", scene(since=np.full((3, 3), np.nan))),
        ("large", scene(np.array([[0, 0, 1900, 1000]], np.float32))),
        ("large", scene(np.array([[np.nan] * 4, [9, 9, 3, 3]], np.float32))),
        ("large", scene(size=(300, 200))),
    ],
)
def test_whatever_crops_would_not_show_is_looked_for_in_the_whole_frame(reason, told):
    look = looks().choose(told, MODEL, 10 * MS)
    assert look.whole and look.reason == reason


def test_a_camera_that_moved_little_shows_the_same_scene():
    assert not looks().choose(scene(since=shift(40.0)), MODEL, 10 * MS).whole


def test_known_objects_are_looked_at_too_and_the_whole_frame_in_time():
    one = looks(max_crops=4, full_frame_interval_ms=500.0)
    look = one.choose(scene(known=FAR), MODEL, 499 * MS)
    assert not look.whole and len(look.crops) == 2
    due = one.choose(scene(known=FAR), MODEL, 500 * MS)
    assert due.whole and due.reason == "due" and len(due.crops) == 2, "with what only crops can see"


@settings(deadline=None)
@given(
    st.sampled_from(["full", "crops", "auto"]),
    st.lists(st.tuples(*[st.floats(-100, 2000)] * 4), max_size=8),
    st.lists(st.tuples(*[st.floats(-100, 2000)] * 4), max_size=8),
    st.sampled_from([None, STILL, shift(3.0), shift(900.0)]),
    st.integers(0, 2000),
    st.integers(1, 8),
)
def test_a_look_shows_all_that_is_told_of(mode, regions, known, since, ms, most):
    """Within the whole frame, or each box within a crop: nothing that is told of is left out."""
    rows = [np.array(rows, np.float32).reshape(-1, 4) for rows in (regions, known)]
    look = looks(mode, max_crops=most).choose(RoiInput(SIZE, rows[0], rows[1], since), MODEL, ms * MS)
    assert look.runs >= 1 and len(look.crops) <= (1 if mode == "auto" else most)
    assert look.whole == bool(look.reason)
    if look.whole:
        return
    for box in np.concatenate(rows):
        shown = np.clip(box, 0, SIZE * 2)
        if (shown[2:] > shown[:2]).all():
            inside = (look.crops[:, :2] <= shown[:2]) & (look.crops[:, 2:] >= shown[2:])
            assert inside.all(axis=1).any()


def one_at(*xyxy_px: float) -> Detections:
    return Detections(np.array([xyxy_px], np.float32), np.array([0.9], np.float32), np.zeros(1, np.int32))


def test_what_goes_on_beyond_a_crop_is_looked_at_as_a_whole_and_known_then():
    one, sizes = looks(), []
    look = one.choose(scene(), MODEL, 10 * MS)
    right = int(look.crops[0, 2])

    def detect(part: Frame) -> Detections:
        """Somebody stands across the crop's right border."""
        sizes.append(part.width_px)
        if len(sizes) == 2:
            return one_at(150, 150, 190, 250)
        return one_at(part.width_px - 25, 100, part.width_px, 200)

    found = one.carry_out(look, detect, PICTURE, 100, 10 * MS)
    assert len(sizes) == 2 and sizes[1] < 960, "one more crop, around it"
    assert len(found) == 1 and abs(found.xyxy_px[0, 0] - right) < 250
    assert (one.status()["roi.followed"], one.status()["roi.frames_crops"]) == (1, 1)


def test_what_goes_on_beyond_that_crop_too_is_looked_at_in_the_whole_frame():
    one, sizes = looks(), []

    def detect(part: Frame) -> Detections:
        sizes.append(part.width_px)
        return one_at(0, 100, part.width_px, 200)

    look = one.choose(scene(), MODEL, 10 * MS)
    found = one.carry_out(look, detect, PICTURE, 100, 10 * MS)
    assert sizes[-1] == SIZE[0] and len(sizes) <= look.most_runs
    assert found.xyxy_px.tolist() == [[0, 100, 1920, 200]]
    assert one.status()["roi.whole.cut"] == 1


def test_too_little_time_means_fewer_and_larger_crops_and_never_less_to_see():
    one = looks(max_crops=4)
    one.config = RoiConfig("crops", max_crops=4, budget_ms=0.001)
    told = scene(known=np.concatenate((FAR, FAR + 0, [[60, 900, 120, 1000]])).astype(np.float32))
    counts = []
    for n in range(5):
        look = one.choose(told, MODEL, n * MS)
        counts.append(look.runs)
        one.carry_out(look, nothing, PICTURE, 100, n * MS)
    assert counts[0] == 3 and counts[-1] == 1
    assert one.status()["roi.limit"] == 1 and one.status()["roi.halved"] >= 1
    assert one.choose(told, MODEL, 9 * MS).reason == "large", "one crop around them all is the frame"


def test_auto_takes_one_crop_only_while_it_costs_no_more():
    one = looks("auto", max_crops=8)
    assert one.choose(scene(), MODEL, MS).runs == 1
    assert one.choose(scene(known=FAR), MODEL, MS).reason == "large"
    one._ratios.extend([1.0, 9.0, 1.1, 0.4, 1.2])
    assert one.choose(scene(), MODEL, MS).runs == 1, "one slow run says nothing"
    one._ratios.extend([1.3] * 15)
    assert one.choose(scene(), MODEL, MS).reason == "cost"
    due = one.choose(scene(), MODEL, 2000 * MS)
    assert due.reason == "due" and due.runs == 2, "and is measured anew"
    one.carry_out(due, nothing, PICTURE, 100, 2000 * MS)
    assert one._ratios[-1] != 1.3


def test_a_run_that_fails_is_the_callers():
    one = looks()

    def fail(part: Frame) -> Detections:
        raise RuntimeError("no runtime")

    with pytest.raises(RuntimeError):
        one.carry_out(one.choose(scene(), MODEL, MS), fail, PICTURE, 100, MS)
    assert one.choose(scene(), MODEL, 2 * MS).runs == 1


def overlapping(found: Detections, truth: np.ndarray) -> int:
    """How many of the true boxes a found one of class 0 overlaps by half."""
    a, b = truth[:, None], found.xyxy_px[None, found.class_ids == 0]
    both = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0).prod(axis=2)
    union = (a[..., 2:] - a[..., :2]).prod(axis=2) + (b[..., 2:] - b[..., :2]).prod(axis=2) - both
    return int((both > 0.5 * union).any(axis=1).sum())


def test_small_people_in_a_large_picture_are_seen_on_crops_only():
    """The street is a sixth of a full HD picture; the truth is what is seen on the street alone."""
    bundle = bundle_or_skip(SSD)
    session, _ = open_session(bundle, "onnxruntime")
    detector = Detector.from_bundle(bundle, session)
    street, _ = street_with_and_without_people()
    alone = detector.detect(Frame(street, 1, "cam"))
    truth = alone.xyxy_px[alone.class_ids == 0] + np.array([600, 300, 600, 300], np.float32)
    picture = np.full((SIZE[1], SIZE[0], 3), 110, np.uint8)
    picture[300:876, 600:1368] = street
    frame = Frame(picture, 2, "cam")
    one = looks(max_crops=4)
    look = one.choose(scene(truth), MODEL, MS)
    found = one.carry_out(look, detector.detect, frame, 100, MS)
    whole = detector.detect(frame)
    session.close()
    assert isinstance(look, RoiPlan) and len(look.crops)
    assert overlapping(found, truth) >= 0.7 * len(truth)
    assert overlapping(whole, truth) <= 0.4 * len(truth)
    # Inside the picture, and each object once.
    assert (found.xyxy_px >= 0).all() and (found.xyxy_px <= SIZE * 2).all()
    assert (np.diff(found.scores) <= 0).all()
