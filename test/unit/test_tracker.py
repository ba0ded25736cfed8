"""The tracker on objects with known ground truth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vision.core.detections import Detections
from edge_vision.tracking import association
from edge_vision.tracking.kalman import BOX, COV, FIRST_SHARE, SPEED, SPEED_VAR, USED_SPEED, VAR
from edge_vision.tracking.tracker import MAX_TRACKED, Tracker, Tracks

MS = 1_000_000
WIDTH, HEIGHT = 640, 480
STILL = np.eye(3)


def found(*boxes: tuple[float, float, float, float], class_id: int = 0, scores=None) -> Detections:
    """Detections from centre x, centre y, width, height."""
    cxywh = np.array(boxes, np.float64).reshape(-1, 4)
    half = cxywh[:, 2:] / 2
    xyxy = np.concatenate((cxywh[:, :2] - half, cxywh[:, :2] + half), axis=1).astype(np.float32)
    if scores is None:
        scores = np.full(len(xyxy), 0.9)
    return Detections(xyxy, np.asarray(scores, np.float32), np.full(len(xyxy), class_id, np.int32))


def centres(tracks: Tracks) -> np.ndarray:
    return (tracks.xyxy_px[:, :2] + tracks.xyxy_px[:, 2:]) / 2


def shift(x_px: float, y_px: float) -> np.ndarray:
    return np.array([[1, 0, x_px], [0, 1, y_px], [0, 0, 1]], np.float64)


def tracker() -> Tracker:
    return Tracker(WIDTH, HEIGHT)


def test_a_constant_velocity_is_estimated_and_predicted():
    one = tracker()
    for i in range(8):
        one.update(found((100 + 20 * i, 200 - 4 * i, 40, 80)), i * 200 * MS, STILL)
    for i in range(1, 6):
        moved = one.predict((1400 + 33 * i) * MS, STILL)
        truth = np.array([[240 + 0.1 * 33 * i, 172 - 0.02 * 33 * i]])
        assert centres(moved) == pytest.approx(truth, abs=1.5)
        assert moved.age_ms == pytest.approx([33 * i])


def test_objects_of_a_static_scene_keep_their_position_in_it():
    one = tracker()
    for i in range(5):
        one.update(found((100 + 20 * i, 200, 40, 80)), i * 200 * MS, STILL)
    assert centres(one.predict(833 * MS, STILL))[0, 0] > 182
    stopped = centres(one.predict(866 * MS, STILL, static=True))
    for i in range(1, 20):
        assert centres(one.predict((866 + 33 * i) * MS, STILL, static=True)) == pytest.approx(stopped)
    panned = one.predict(1600 * MS, shift(-7, 2), static=True)
    assert centres(panned) == pytest.approx(stopped + np.array([-7, 2]), abs=1.0)


def test_an_inferred_frame_publishes_the_detections_themselves():
    one = tracker()
    rng = np.random.default_rng(0)
    for i in range(10):
        boxes = [(100 * k + rng.normal(0, 2), 100, 40, 80) for k in range(1, 6)]
        seen = found(*boxes, scores=rng.uniform(0.5, 1, 5))
        tracks = one.update(seen, i * 100 * MS, STILL)
        np.testing.assert_array_equal(tracks.xyxy_px, seen.xyxy_px)
        np.testing.assert_array_equal(tracks.scores, seen.scores)
        np.testing.assert_array_equal(tracks.ids, [1, 2, 3, 4, 5])
        np.testing.assert_array_equal(tracks.age_ms, 0)


def test_a_new_object_is_predicted_on_the_next_frame():
    one = tracker()
    one.update(found(), 0, STILL)
    one.update(found((100, 100, 40, 40), class_id=7, scores=[0.8]), 33 * MS, STILL)
    for i in range(1, 30):
        moved = one.predict((33 + 33 * i) * MS, STILL)
        assert centres(moved) == pytest.approx(np.array([[100, 100]]))
        assert (moved.class_ids[0], moved.scores[0], moved.ids[0]) == (7, pytest.approx(0.8), 1)


@pytest.mark.parametrize("zoom", [1.0, 1.01])
def test_static_objects_move_with_a_panning_camera(zoom):
    """With a panning, zooming and rolling camera a static object keeps its position in the scene, once the
    first inferences have confirmed the camera's motion."""
    turn = cv2.getRotationMatrix2D((320, 240), 0.5 if zoom != 1 else 0.0, zoom)
    motion = np.vstack((turn, [0, 0, 1])) @ shift(3.3, -1.2)
    places = np.array([[200, 200, 40, 80], [360, 300, 60, 30]], np.float64)
    one = tracker()
    for i in range(40):
        if i:
            at = np.c_[places[:, :2], [1, 1]] @ motion.T
            places[:, :2] = at[:, :2]
            places[:, 2:] *= zoom
        seen = i % 10 == 0
        stamp_ns = i * 33 * MS
        tracks = one.update(found(*places), stamp_ns, motion) if seen else one.predict(stamp_ns, motion)
        inside = (places[:, 0] + places[:, 2] < WIDTH) & (places[:, 1] > places[:, 3])
        assert inside.all()
        order = np.argsort(tracks.ids)
        if i < 10:
            continue
        # The share of the predicted displacement approaches 1; up to 40 px are predicted.
        assert centres(tracks)[order] == pytest.approx(places[:, :2], abs=4.0 if i < 20 else 2.0)
        assert (tracks.xyxy_px[:, 2:] - tracks.xyxy_px[:, :2])[order] == pytest.approx(
            places[:, 2:], rel=0.02
        )


def test_an_object_keeps_its_own_velocity_while_the_camera_pans():
    one = tracker()
    x = 100.0
    for i in range(40):
        x += 0 if i == 0 else 2.0 + 5.0  # The camera's pan, and its own.
        seen = found((x, 200, 60, 60))
        motion = shift(2.0, 0) if i else STILL
        tracks = one.update(seen, i * 33 * MS, motion) if i % 4 == 0 else one.predict(i * 33 * MS, motion)
        if i > 20:
            assert centres(tracks)[0, 0] == pytest.approx(x, abs=2.0)
    # The camera stops at once, the object does not.
    tracks = one.predict(40 * 33 * MS, STILL)
    assert centres(tracks)[0, 0] == pytest.approx(x + 5.0, abs=2.0)


STANDING = [(60, 100, 40, 80), (190, 220, 44, 84), (320, 90, 60, 30), (440, 330, 30, 60), (560, 200, 50, 50)]


@pytest.mark.parametrize("motion", [STILL, None])
def test_an_unknown_camera_motion_is_estimated_from_the_boxes(motion):
    """A pan of three widths between two inferences: no detection is within the gate of its track."""
    one = Tracker(1200, HEIGHT)
    for i in range(4):
        seen = found(*((x - 120 * i + 400, y, w, h) for x, y, w, h in STANDING))
        assert one.update(seen, i * 200 * MS, motion).ids.tolist() == [1, 2, 3, 4, 5]
    moved = one.predict(700 * MS, motion)
    expected = [STANDING[number - 1][0] - 120 * 3.5 + 400 for number in moved.ids]
    assert len(expected) == 5
    assert centres(moved)[:, 0] == pytest.approx(expected, abs=4)


@pytest.mark.parametrize("others", [2, 3])
def test_a_new_object_starts_with_the_common_speed(others):
    one = tracker()
    for i in range(4):
        boxes = [(x - 60 * i + 180, y, w, h) for x, y, w, h in STANDING[: others + (i == 3)]]
        one.update(found(*boxes), i * 200 * MS, STILL)
    moved = one.predict(700 * MS, STILL)
    truth = STANDING[others][0] - 30
    assert centres(moved)[moved.ids.tolist().index(others + 1), 0] == pytest.approx(truth, abs=2)


@pytest.mark.parametrize(
    ("speeds", "inherited"), [((-60, -66), -63), ((10, -10, 25), 0)], ids=["nearly alike", "apart"]
)
def test_a_new_object_starts_with_the_median_speed_if_speeds_agree(speeds, inherited):
    """Speeds in px per 200 ms."""
    one = tracker()
    for i in range(5):
        boxes = [(300 + speed * i, 60 + 120 * n, 60, 60) for n, speed in enumerate(speeds)]
        one.update(found(*boxes, *[(500, 430, 60, 60)][: i == 4]), i * 200 * MS, STILL)
    moved = one.predict(1000 * MS, STILL)
    at = int(moved.ids.argmax())
    assert centres(moved)[at, 0] == pytest.approx(500 + inherited, abs=1)


def test_static_objects_have_no_speed_and_no_speed_variance():
    one = tracker()
    for i in range(3):
        one.update(found((100 + 20 * i, 200, 40, 80)), i * 200 * MS, STILL)
    one.predict(400 * MS, STILL, static=True)
    state = one.state().tracks.state
    assert not any(state[rows].any() for rows in (SPEED, USED_SPEED, COV, SPEED_VAR)) and state[VAR].all()


def test_a_new_object_has_no_speed_if_the_others_disagree():
    one = tracker()
    for i in range(4):
        boxes = [(200 - 20 * i, 100, 40, 40), (300 + 20 * i, 200, 40, 40), (300, 300, 40, 40)][: 2 + (i == 3)]
        one.update(found(*boxes), i * 200 * MS, STILL)
    moved = one.predict(700 * MS, STILL)
    assert centres(moved)[moved.ids.tolist().index(3)] == pytest.approx([300, 300])


def test_new_objects_do_not_inherit_ids():
    """Detections of other sizes, or without a common displacement, are new objects."""
    one = tracker()
    one.update(found((100, 100, 40, 40), (300, 100, 40, 40), (500, 300, 40, 40)), 0, STILL)
    seen = found((200, 300, 80, 80), (400, 400, 40, 40), (100, 250, 20, 20))
    assert one.update(seen, 200 * MS, STILL).ids.tolist() == [4, 5, 6]


def test_a_homography_moves_box_centres_like_points():
    motion = np.array([[1.02, 0.01, 3], [-0.01, 0.99, -2], [2e-5, -3e-5, 1]])
    one = tracker()
    one.update(found((200, 200, 20, 20)), 0, STILL)
    moved = one.predict(33 * MS, motion)
    corners = np.array([[[190, 190]], [[210, 190]], [[210, 210]], [[190, 210]], [[200, 200]]], np.float64)
    truth = cv2.perspectiveTransform(corners, motion)[:, 0]
    assert len(moved) == 1
    box = one.state().tracks.state[BOX, 0]
    assert box[:2] == pytest.approx(truth[4], abs=1e-3)
    area = cv2.contourArea(truth[:4].astype(np.float32))
    size = box[2:]
    assert size[0] * size[1] == pytest.approx(area, rel=1e-2)


@pytest.mark.parametrize("bad", [np.zeros((3, 3)), np.full((3, 3), np.nan), np.diag([1.0, 1.0, -1.0])])
def test_an_invalid_motion_ends_all_tracks(bad):
    one = tracker()
    one.update(found((200, 200, 20, 20)), 0, STILL)
    assert len(one.predict(33 * MS, bad)) == 0


def test_no_track_survives_a_cut():
    one = tracker()
    first = one.update(found((100, 100, 40, 40), (300, 300, 40, 40)), 0, STILL)
    one.reset()
    assert len(one.predict(33 * MS, STILL)) == 0
    again = one.update(found((100, 100, 40, 40)), 66 * MS, STILL)
    assert not set(again.ids.tolist()) & set(first.ids.tolist())


def test_crossing_objects_keep_their_ids():
    one = tracker()
    for i in range(41):
        boxes = (100 + 10 * i, 200, 40, 80), (500 - 10 * i, 214, 40, 80)
        # They swap places in the list, as scores do.
        seen = found(*(boxes if i % 2 else boxes[::-1]))
        tracks = one.update(seen, i * 100 * MS, STILL)
        ids = tracks.ids.tolist() if i % 2 else tracks.ids.tolist()[::-1]
        if i == 0:
            first = ids
        assert ids == first


def test_a_missed_track_is_hidden_and_recovers_its_id():
    one = tracker()
    for i in range(5):
        one.update(found((100 + 20 * i, 200, 40, 80)), i * 200 * MS, STILL)
    assert len(one.predict(900 * MS, STILL)) == 1
    one.update(found(), 1000 * MS, STILL)  # Behind a pillar for one inference.
    assert len(one.predict(1100 * MS, STILL)) == 0
    back = one.update(found((220, 200, 40, 80)), 1200 * MS, STILL)
    assert back.ids.tolist() == [1]
    assert centres(one.predict(1400 * MS, STILL)) == pytest.approx(np.array([[240, 200]]), abs=1.5)


def test_a_track_missed_twice_gets_a_new_id():
    one = tracker()
    for i in range(5):
        one.update(found((300, 200, 40, 80)), i * 100 * MS, STILL)
    for i in range(5, 9):
        one.update(found(), i * 100 * MS, STILL)
    assert one.update(found((300, 200, 40, 80)), 900 * MS, STILL).ids.tolist() == [2]


@pytest.mark.parametrize("x, y", [(1, 0), (-1, 0), (0, 1), (0, -1)], ids=["right", "left", "down", "up"])
def test_a_box_is_clipped_to_the_image_and_ends_when_it_leaves(x, y):
    one, middle = tracker(), np.array([WIDTH / 2, HEIGHT / 2])
    for i in range(8):
        # At first 220 px, at last 80 px from the edge; 40 px long in its direction, and 80 px across.
        at = middle + (middle - 220 + 20 * i) * [x, y]
        one.update(found((*at, 40 + 40 * abs(y), 40 + 40 * abs(x))), i * 100 * MS, STILL)
    counts = []
    for i in range(1, 20):
        tracks = one.predict((700 + 33 * i) * MS, STILL)
        counts.append(len(tracks))
        assert (tracks.xyxy_px[:, [0, 1]] >= 0).all()
        assert (tracks.xyxy_px <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()
    # Its centre moves by 6.6 px: 70 % of it are outside when that is 8 px beyond the edge.
    assert counts.index(0) == pytest.approx((80 + 8) / 6.6, abs=2)
    assert not any(counts[counts.index(0) :])


def test_uncertainty_ends_a_track_sooner_without_camera_motion():
    def life_ms(motion) -> int:
        one = tracker()
        for i in range(5):
            one.update(found((300, 200, 40, 80)), i * 100 * MS, STILL)
        ms = 400
        while len(one.predict(ms * MS, motion)):
            ms += 20
            assert ms < 60_000, "no track lives for ever"
        return ms - 400

    known, unknown = life_ms(STILL), life_ms(None)
    assert 1000 < unknown < 0.8 * known


def test_stamps_going_backwards_end_all_tracks():
    one = tracker()
    one.update(found((300, 200, 40, 80)), 1000 * MS, STILL)
    assert len(one.predict(1000 * MS, STILL)) == 1
    assert len(one.predict(500 * MS, STILL)) == 0
    again = one.update(found((300, 200, 40, 80)), 600 * MS, STILL)
    assert again.ids.tolist() == [2]
    moved = one.predict(633 * MS, STILL)
    assert moved.age_ms == pytest.approx([33])


def test_classes_are_not_mixed():
    one = tracker()
    one.update(found((300, 200, 40, 80), class_id=1), 0, STILL)
    assert one.update(found((300, 200, 40, 80), class_id=2), 100 * MS, STILL).ids.tolist() == [2]


def test_no_detections_and_very_many():
    one = tracker()
    for i in range(3):
        assert len(one.update(Detections.empty(), 2 * i * MS, None)) == 0
        assert len(one.predict((2 * i + 1) * MS, None)) == 0
    grid = [(20 + 30 * (i % 20), 10 + 18 * (i // 20), 24, 14) for i in range(MAX_TRACKED)]
    for i in range(5):
        moved = [(x + 2 * i, y, w, h) for x, y, w, h in grid]
        tracks = one.update(found(*moved), (100 + 100 * i) * MS, STILL)
        np.testing.assert_array_equal(tracks.ids, np.arange(1, MAX_TRACKED + 1))
    order = np.argsort(one.predict(550 * MS, STILL).ids)
    tracks = one.predict(550 * MS, STILL)
    assert centres(tracks)[order][:, 0] == pytest.approx([x + 9 for x, *_ in grid], abs=0.5)


def test_of_too_many_detections_the_best_are_tracked(monkeypatch):
    pairs = []
    similarity = association._similarity

    def counted(box, var, other):
        pairs.append(max(box[0].size, other[0].size))
        return similarity(box, var, other)

    monkeypatch.setattr(association, "_similarity", counted)
    one, n = tracker(), 3 * MAX_TRACKED
    crowd = found(*[(320, 240, 40, 40)] * n, scores=np.linspace(0.9, 0.5, n))
    first = one.update(crowd, 0, STILL).ids
    second = one.update(crowd, 100 * MS, STILL).ids
    assert len(np.unique(first)) == len(first) == len(second) == n
    np.testing.assert_array_equal(first[:MAX_TRACKED], second[:MAX_TRACKED])
    assert second[MAX_TRACKED:].min() > first.max(), "the others have new ids"
    assert len(one.predict(133 * MS, STILL)) == MAX_TRACKED
    assert pairs and max(pairs) <= MAX_TRACKED**2


def test_tracks_are_sorted_by_descending_score():
    one = tracker()
    one.update(found((100, 100, 40, 40), (300, 100, 40, 40), scores=[0.6, 0.9]), 0, STILL)
    tracks = one.predict(33 * MS, STILL)
    assert tracks.scores.tolist() == pytest.approx([0.9, 0.6])
    assert tracks.ids.tolist() == [2, 1]
    assert len(tracks.detections()) == len(tracks) == 2


def test_results_do_not_change_later():
    one = tracker()
    tracks = one.update(found((100, 100, 40, 40)), 0, STILL)
    skipped = one.predict(33 * MS, shift(5, 0))
    before = skipped.xyxy_px.copy()
    one.predict(66 * MS, shift(5, 0))
    one.update(found((120, 100, 40, 40)), 99 * MS, shift(5, 0))
    np.testing.assert_array_equal(skipped.xyxy_px, before)
    assert tracks.ids.tolist() == [1]


def last_boxes(one: Tracker, positions: list[float], motion_px: list[float]) -> tuple[float, float]:
    """The centre that is shown after three more frames, and the last detected one. positions: x, every
    fourth frame. motion_px: the camera's, as measured on each frame."""
    for i, x in enumerate(positions):
        for frame in range(4 * i - 3, 4 * i):
            one.predict(frame * 33 * MS, shift(motion_px[frame], 0))
        one.update(found((x, 200, 40, 80)), i * 4 * 33 * MS, shift(motion_px[4 * i], 0))
    end = 4 * (len(positions) - 1)
    for frame in range(end + 1, end + 4):
        moved = one.predict(frame * 33 * MS, shift(motion_px[frame], 0))
    return float(centres(moved)[0, 0]), positions[-1]


def test_an_object_that_stops_or_turns_is_held():
    stopped = [100, 120, 140, 160, 180, 180]
    turned = [100, 120, 140, 160, 180, 160]
    for positions in (stopped, turned):
        shown, last = last_boxes(tracker(), positions, [0.0] * 24)
        assert shown == pytest.approx(last, abs=0.01)


def test_a_slower_object_is_predicted_at_its_last_speed():
    shown, last = last_boxes(tracker(), [100, 140, 180, 220, 224], [0.0] * 24)
    assert last < shown <= last + 3.1


@pytest.mark.parametrize("follows", [True, False], ids=["the camera follows the object", "the object stands"])
def test_a_predicted_displacement_that_does_not_occur_is_not_shown(follows):
    """In front of a camera that follows it, an object keeps its place in the picture."""
    rng = np.random.default_rng(5)
    pan = rng.uniform(-20, 20, 48)
    pan[45:48] = 6.0
    steps = np.concatenate([[0], pan[1:45].reshape(-1, 4).sum(axis=1)])
    positions = [300.0] * 12 if follows else (300 + np.cumsum(steps)).tolist()
    shown, last = last_boxes(tracker(), positions, pan.tolist())
    assert shown - last == pytest.approx(0.0 if follows else 18.0, abs=4.0)


def test_a_pan_is_half_trusted_until_the_next_inference():
    one = tracker()
    one.update(found((300, 200, 40, 80)), 0, STILL)
    moved = one.predict(33 * MS, shift(20, 0))
    assert centres(moved)[0, 0] == pytest.approx(300 + 20 * FIRST_SHARE, abs=0.01)


def test_a_cut_ends_what_was_learned_about_the_camera():
    one = tracker()
    last_boxes(one, [300.0] * 12, np.random.default_rng(5).uniform(-20, 20, 48).tolist())
    assert one.state().trust.share < 0.3
    one.reset()
    assert one.state().trust.share == FIRST_SHARE


ANY_BOX = st.tuples(
    st.floats(-50, 700), st.floats(-50, 530), st.floats(0, 300), st.floats(0, 300), st.floats(0.1, 1)
)
STEP = st.tuples(
    st.booleans(), st.lists(ANY_BOX, max_size=6), st.integers(-50, 500), st.none() | st.floats(-40, 40)
)


@given(st.lists(STEP, max_size=15))
def test_invariants_for_arbitrary_input(steps):
    one, stamp_ns, seen_ids, last = tracker(), 0, set(), 0
    for inferred, boxes, ms, pan in steps:
        stamp_ns += ms * MS
        motion = None if pan is None else shift(pan, 0)
        seen = found(*(box[:4] for box in boxes), scores=[box[4] for box in boxes])
        tracks = one.update(seen, stamp_ns, motion) if inferred else one.predict(stamp_ns, motion)
        assert len(set(tracks.ids.tolist())) == len(tracks)
        assert np.isfinite(tracks.xyxy_px).all()
        columns = tracks.xyxy_px, tracks.scores, tracks.class_ids, tracks.ids, tracks.age_ms
        assert [column.dtype for column in columns] == ["f4", "f4", "i4", "i8", "f4"]
        assert all(column.flags.c_contiguous for column in columns)
        if inferred:
            np.testing.assert_array_equal(tracks.xyxy_px, seen.xyxy_px)
            assert all(i in seen_ids or i > last for i in tracks.ids.tolist())
            seen_ids |= set(tracks.ids.tolist())
            last = max([last, *tracks.ids.tolist()])
        else:
            assert set(tracks.ids.tolist()) <= seen_ids
            assert (tracks.age_ms >= 0).all()
            assert (tracks.xyxy_px[:, 2:] > tracks.xyxy_px[:, :2]).all()
            assert (tracks.xyxy_px >= 0).all() and (tracks.xyxy_px <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()
