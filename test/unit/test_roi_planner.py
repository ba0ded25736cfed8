"""When crops replace the whole frame, and that they miss nothing that the whole frame shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import SSD, bundle_or_skip, street_with_and_without_people

from edge_vision.backends import open_session
from edge_vision.core.detections import DetectionResult, Detections, StageTiming
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


def runs(plan: RoiPlan) -> int:
    """Number of inferences, unless an object extends beyond the crops."""
    return len(plan.crops) + plan.whole


def scene(regions=HERE, known=NONE, since=STILL, size=SIZE) -> RoiInput:
    return RoiInput(size, regions, known, since)


def nothing(frame: Frame) -> DetectionResult:
    return DetectionResult(Detections.empty())


def planner_after_full_frame(mode="crops", **config) -> RoiPlanner:
    """A planner that has run a full-frame pass."""
    one = RoiPlanner(RoiConfig(mode, **config))
    one.run(one.plan(scene(), MODEL, 0), nothing, PICTURE, 100, 0)
    return one


def shift(x: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, 0], [0, 0, 1]], float)


def test_the_first_pass_is_on_the_whole_frame_and_the_next_on_crops():
    one = RoiPlanner(RoiConfig("crops"))
    first = one.plan(scene(), MODEL, 0)
    assert first.whole and first.reason == "first" and len(first.crops) == 1
    one.run(first, nothing, PICTURE, 100, 0)
    then = one.plan(scene(), MODEL, 10 * MS)
    assert not then.whole and runs(then) == 1
    assert (then.crops[0, :2] <= HERE[0, :2]).all() and (then.crops[0, 2:] >= HERE[0, 2:]).all()
    one.reset()
    assert one.plan(scene(), MODEL, 20 * MS).reason == "first"


@pytest.mark.parametrize(
    ("reason", "roi_input"),
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
def test_the_whole_frame_is_inferred_if_crops_do_not_suffice(reason, roi_input):
    plan = planner_after_full_frame().plan(roi_input, MODEL, 10 * MS)
    assert plan.whole and plan.reason == reason


def test_a_small_camera_motion_keeps_the_last_full_frame_pass_valid():
    assert not planner_after_full_frame().plan(scene(since=shift(40.0)), MODEL, 10 * MS).whole


def test_crops_cover_known_objects_and_the_whole_frame_follows_when_due():
    one = planner_after_full_frame(max_crops=4, full_frame_interval_ms=500.0)
    plan = one.plan(scene(known=FAR), MODEL, 499 * MS)
    assert not plan.whole and len(plan.crops) == 2
    due = one.plan(scene(known=FAR), MODEL, 500 * MS)
    assert due.whole and due.reason == "due" and len(due.crops) == 2, "combined with the crops"


@settings(deadline=None)
@given(
    st.sampled_from(["full", "crops", "auto"]),
    st.lists(st.tuples(*[st.floats(-100, 2000)] * 4), max_size=8),
    st.lists(st.tuples(*[st.floats(-100, 2000)] * 4), max_size=8),
    st.sampled_from([None, STILL, shift(3.0), shift(900.0)]),
    st.integers(0, 2000),
    st.integers(1, 8),
)
def test_a_plan_covers_all_regions_and_known_objects(mode, regions, known, since, ms, most):
    """Either the whole frame is inferred, or each box lies within a crop."""
    rows = [np.array(rows, np.float32).reshape(-1, 4) for rows in (regions, known)]
    plan = planner_after_full_frame(mode, max_crops=most).plan(
        RoiInput(SIZE, rows[0], rows[1], since), MODEL, ms * MS
    )
    assert runs(plan) >= 1 and len(plan.crops) <= (1 if mode == "auto" else most)
    assert plan.whole == bool(plan.reason)
    if plan.whole:
        return
    for box in np.concatenate(rows):
        shown = np.clip(box, 0, SIZE * 2)
        if (shown[2:] > shown[:2]).all():
            inside = (plan.crops[:, :2] <= shown[:2]) & (plan.crops[:, 2:] >= shown[2:])
            assert inside.all(axis=1).any()


def one_at(*xyxy_px: float) -> DetectionResult:
    box, score = np.array([xyxy_px], np.float32), np.array([0.9], np.float32)
    return DetectionResult(Detections(box, score, np.zeros(1, np.int32)), StageTiming(1.0, 2.0, 3.0), 0.9)


def test_an_object_that_extends_beyond_a_crop_gets_another_crop():
    one, sizes = planner_after_full_frame(), []
    plan = one.plan(scene(), MODEL, 10 * MS)
    right = int(plan.crops[0, 2])

    def detect(part: Frame) -> DetectionResult:
        """A person stands across the crop's right border."""
        sizes.append(part.width_px)
        if len(sizes) == 2:
            return one_at(150, 150, 190, 250)
        return one_at(part.width_px - 25, 100, part.width_px, 200)

    found = one.run(plan, detect, PICTURE, 100, 10 * MS).detections
    assert len(sizes) == 2 and sizes[1] < 960, "one more crop, around it"
    assert len(found) == 1 and abs(found.xyxy_px[0, 0] - right) < 250
    assert (one.status()["roi.followed"], one.status()["roi.frames_crops"]) == (1, 1)


def test_an_object_that_extends_beyond_that_crop_too_needs_the_whole_frame():
    one, sizes = planner_after_full_frame(), []

    def detect(part: Frame) -> DetectionResult:
        sizes.append(part.width_px)
        return one_at(0, 100, part.width_px, 200)

    plan = one.plan(scene(), MODEL, 10 * MS)
    found = one.run(plan, detect, PICTURE, 100, 10 * MS).detections
    assert sizes[-1] == SIZE[0] and len(sizes) <= runs(plan) + 2
    assert found.xyxy_px.tolist() == [[0, 100, 1920, 200]]
    assert one.status()["roi.whole.cut"] == 1


def test_the_result_sums_the_timing_of_all_passes():
    one = RoiPlanner(RoiConfig("crops"))
    result = one.run(one.plan(scene(), MODEL, 0), lambda part: one_at(9, 9, 90, 90), PICTURE, 100, 0)
    assert result.timing == StageTiming(2.0, 4.0, 6.0) and result.top_score == 0.9
    assert result.low_score is None, "not available with crops"


def test_low_score_detections_of_a_full_frame_pass_are_returned():
    one, low_score = RoiPlanner(), Detections.empty()
    plan = one.plan(scene(), MODEL, 0)
    result = one.run(plan, lambda part: DetectionResult(low_score, low_score=low_score), PICTURE, 100, 0)
    assert result.low_score is low_score


def test_a_small_time_budget_gives_fewer_and_larger_crops():
    one = planner_after_full_frame(max_crops=4)
    one.config = RoiConfig("crops", max_crops=4, budget_ms=0.001)
    crowded = scene(known=np.concatenate((FAR, FAR + 0, [[60, 900, 120, 1000]])).astype(np.float32))
    counts = []
    for n in range(5):
        plan = one.plan(crowded, MODEL, n * MS)
        counts.append(runs(plan))
        one.run(plan, nothing, PICTURE, 100, n * MS)
    assert counts[0] == 3 and counts[-1] == 1
    assert one.status()["roi.limit"] == 1 and one.status()["roi.halved"] >= 1
    assert one.plan(crowded, MODEL, 9 * MS).reason == "large", "one crop around them all is the frame"


def test_auto_uses_a_crop_only_while_it_costs_no_more_than_the_frame():
    one = planner_after_full_frame("auto", max_crops=8)
    assert runs(one.plan(scene(), MODEL, MS)) == 1
    assert one.plan(scene(known=FAR), MODEL, MS).reason == "large"
    one._ratios.extend([1.0, 9.0, 1.1, 0.4, 1.2])
    assert runs(one.plan(scene(), MODEL, MS)) == 1, "one slow inference is not enough"
    one._ratios.extend([1.3] * 15)
    assert one.plan(scene(), MODEL, MS).reason == "cost"
    due = one.plan(scene(), MODEL, 2000 * MS)
    assert due.reason == "due" and runs(due) == 2, "so that the cost is measured again"
    one.run(due, nothing, PICTURE, 100, 2000 * MS)
    assert one._ratios[-1] != 1.3


def test_an_error_of_the_detector_reaches_the_caller():
    one = planner_after_full_frame()

    def fail(part: Frame) -> DetectionResult:
        raise RuntimeError("no runtime")

    with pytest.raises(RuntimeError):
        one.run(one.plan(scene(), MODEL, MS), fail, PICTURE, 100, MS)
    assert runs(one.plan(scene(), MODEL, 2 * MS)) == 1


def matched_boxes(found: Detections, expected: np.ndarray) -> int:
    """Number of expected boxes that a detection of class 0 overlaps by IoU 0.5."""
    a, b = expected[:, None], found.xyxy_px[None, found.class_ids == 0]
    both = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0).prod(axis=2)
    union = (a[..., 2:] - a[..., :2]).prod(axis=2) + (b[..., 2:] - b[..., :2]).prod(axis=2) - both
    return int((both > 0.5 * union).any(axis=1).sum())


def test_small_people_in_a_large_image_are_detected_on_crops_only():
    """The street is a sixth of a full HD image; the reference is the detections on the street alone."""
    bundle = bundle_or_skip(SSD)
    session, _ = open_session(bundle, "onnxruntime")
    detector = Detector.from_bundle(bundle, session)
    street, _ = street_with_and_without_people()
    alone = detector.detect(Frame(street, 1, "cam")).detections
    expected = alone.xyxy_px[alone.class_ids == 0] + np.array([600, 300, 600, 300], np.float32)
    picture = np.full((SIZE[1], SIZE[0], 3), 110, np.uint8)
    picture[300:876, 600:1368] = street
    frame = Frame(picture, 2, "cam")
    one = planner_after_full_frame(max_crops=4)
    plan = one.plan(scene(expected), MODEL, MS)
    found = one.run(plan, detector.detect, frame, 100, MS).detections
    whole = detector.detect(frame).detections
    session.close()
    assert isinstance(plan, RoiPlan) and len(plan.crops)
    assert matched_boxes(found, expected) >= 0.7 * len(expected)
    assert matched_boxes(whole, expected) <= 0.4 * len(expected)
    # Inside the image, and without duplicates.
    assert (found.xyxy_px >= 0).all() and (found.xyxy_px <= SIZE * 2).all()
    assert (np.diff(found.scores) <= 0).all()
