"""Late detections give the same tracks as detections in order."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_vision.core.detections import Detections
from edge_vision.tracking.kalman import FIRST_SHARE
from edge_vision.tracking.tracker import Tracker
from edge_vision.tracking.tracking_history import MAX_FRAMES, MAX_LATENESS_NS, TrackingHistory

STEP_NS = 50_000_000
SIZE = (640, 480)
STILL = np.eye(3)


def found(*boxes: tuple[float, float, float, float]) -> Detections:
    """Detections from left, top, right, bottom."""
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(xyxy, np.full(len(xyxy), 0.9, np.float32), np.zeros(len(xyxy), np.int32))


def shift(x_px: float) -> np.ndarray:
    return np.array([[1, 0, x_px], [0, 1, 0], [0, 0, 1]], np.float64)


def stamp(n: int) -> int:
    return 10**9 + n * STEP_NS


def scene(n: int) -> Detections:
    """Two objects: one moves to the right by 3 px per frame, one is static."""
    return found((100 + 3 * n, 100, 140 + 3 * n, 180), (400, 300, 460, 420))


def history_of(n: int, motion: np.ndarray | None = STILL) -> TrackingHistory:
    history = TrackingHistory()
    for at in range(n):
        history.add_frame(stamp(at), motion, at)
    return history


def tracks_in_order(frames: int, inferred: set[int], motions: list, rests: list[bool]) -> dict[int, tuple]:
    tracker, out = Tracker(*SIZE), {}
    for n in range(frames):
        if n in inferred:
            tracker.update(scene(n), stamp(n), motions[n])
        else:
            tracks = tracker.predict(stamp(n), motions[n], rests[n])
            out[n] = (tracks.xyxy_px, tracks.ids, tracks.age_ms)
    return out


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_late_and_unordered_calls_give_the_same_tracks_as_ordered_ones(data: st.DataObject) -> None:
    """Frames are added in any order and queried at any time; inferences end in order, arbitrarily late."""
    frames = data.draw(st.integers(2, 25))
    inferred = {0, *data.draw(st.sets(st.integers(0, frames - 1), max_size=6))}
    motions = [shift(x) for x in data.draw(st.lists(st.floats(-5, 5), min_size=frames, max_size=frames))]
    rests = data.draw(st.lists(st.booleans(), min_size=frames, max_size=frames))
    history, waiting = TrackingHistory(), sorted(inferred)
    order = data.draw(st.permutations(range(frames)))
    added: set[int] = set()
    for n in order:
        history.add_frame(stamp(n), motions[n], n, rests[n])
        added.add(n)
        if data.draw(st.booleans()):
            assert history.tracks_at(stamp(n)) is not None
        # What is found on a frame comes when the frame and those before it are known, or later.
        while waiting and added.issuperset(range(waiting[0] + 1)) and data.draw(st.booleans()):
            history.add_detections(stamp(waiting[0]), scene(waiting[0]), SIZE)
            waiting.pop(0)
    for n in waiting:
        history.add_detections(stamp(n), scene(n), SIZE)
    for n, (xyxy_px, ids, age_ms) in tracks_in_order(frames, inferred, motions, rests).items():
        tracks = history.tracks_at(stamp(n))
        assert tracks is not None
        np.testing.assert_array_equal(tracks.xyxy_px, xyxy_px)
        np.testing.assert_array_equal(tracks.ids, ids)
        np.testing.assert_array_equal(tracks.age_ms, age_ms)


def test_during_an_inference_tracks_are_predicted_from_the_one_before():
    history = history_of(6)
    history.add_detections(stamp(0), scene(0), SIZE)
    # Frame 2 is with the detector; 3, 4 and 5 are skipped meanwhile.
    before = [history.tracks_at(stamp(n)) for n in (3, 4, 5)]
    assert [one.age_ms.tolist() for one in before] == [[150, 150], [200, 200], [250, 250]]
    ids = history.add_detections(stamp(2), scene(2), SIZE)
    after = history.tracks_at(stamp(5))
    assert after.age_ms.tolist() == [150, 150]
    assert sorted(ids.tolist()) == sorted(after.ids.tolist()) == sorted(before[0].ids.tolist())
    # It has been seen to walk by now: frame 5 shows it further on than frame 2 did, as far as the truth.
    walker = after.xyxy_px[list(after.ids).index(ids[0])]
    assert 106 < walker[0] <= 115


def test_static_objects_move_with_the_camera():
    history = TrackingHistory()
    for n in range(25):
        history.add_frame(stamp(n), shift(-7.0), n)
    for n in range(0, 21, 4):
        history.add_detections(stamp(n), found((300 - 7 * n, 100, 340 - 7 * n, 180)), SIZE)
    tracks = history.tracks_at(stamp(24))
    assert tracks.xyxy_px[0] == pytest.approx([300 - 7 * 24, 100, 340 - 7 * 24, 180], abs=2.0)


def test_there_are_no_tracks_before_the_first_inference_or_after_a_reset():
    history = history_of(3)
    assert len(history.tracks_at(stamp(2))) == 0
    first = history.add_detections(stamp(1), scene(1), SIZE)
    assert len(history.tracks_at(stamp(2))) == 2
    history.reset()
    assert history.tracks_at(stamp(2)) is None
    history.add_frame(stamp(3), STILL, 3)
    assert len(history.tracks_at(stamp(3))) == 0
    again = history.add_detections(stamp(3), scene(3), SIZE)
    assert not set(first.tolist()) & set(again.tolist()), "an id is never given twice"


def test_a_result_from_before_a_reset_restores_no_tracks():
    history = history_of(4)
    history.reset(seq=10)
    history.add_frame(stamp(2), STILL, 2)  # It was on its way.
    assert history.tracks_at(stamp(2)) is None
    assert len(history.add_detections(stamp(2), scene(2), SIZE)) == 2, "it has ids all the same"
    history.add_frame(stamp(5), STILL, 11)
    assert len(history.tracks_at(stamp(5))) == 0


def test_after_an_unknown_camera_motion_there_are_no_tracks_until_the_next_inference():
    """It may have been a cut."""
    history = history_of(2)
    ids = history.add_detections(stamp(0), scene(0), SIZE)
    history.add_frame(stamp(2), None, 2)
    history.add_frame(stamp(3), STILL, 3)
    assert [len(history.tracks_at(stamp(n))) for n in (1, 2, 3)] == [2, 0, 0]
    assert history.add_detections(stamp(2), scene(0), SIZE).tolist() == ids.tolist(), "it was none"
    assert len(history.tracks_at(stamp(3))) == 2
    history.add_frame(stamp(4), None, 4)
    history.add_frame(stamp(5), STILL, 5)
    history.add_detections(stamp(4), found(), SIZE)
    assert len(history.tracks_at(stamp(5))) == 0, "it was one"


def test_a_frame_that_is_added_late_keeps_later_detections():
    """A transport may deliver it after the result of a later one."""
    history = TrackingHistory()
    for n in (0, 2, 3):
        history.add_frame(stamp(n), STILL, n)
    for n in (0, 2):
        history.add_detections(stamp(n), scene(n), SIZE)
    before = history.tracks_at(stamp(3))
    history.add_frame(stamp(1), shift(50.0), 4)
    after = history.tracks_at(stamp(3))
    np.testing.assert_array_equal(after.xyxy_px, before.xyxy_px)
    np.testing.assert_array_equal(after.age_ms, [50, 50])
    assert history.tracks_at(stamp(1)).xyxy_px[:, 0] == pytest.approx(
        [100 + 50 * FIRST_SHARE, 400 + 50 * FIRST_SHARE]
    )


def test_another_image_size_ends_all_tracks():
    history = history_of(4)
    ids = history.add_detections(stamp(0), scene(0), SIZE)
    other = history.add_detections(stamp(2), scene(0), (320, 240))
    assert not set(ids.tolist()) & set(other.tolist())
    right = history.tracks_at(stamp(3)).xyxy_px[:, 2]
    assert right.max() <= 320.0


def test_a_clock_reset_ends_all_tracks():
    history = history_of(50)
    history.add_detections(stamp(49), scene(0), SIZE)
    restarted_ns = stamp(49) - MAX_LATENESS_NS - 1
    history.add_frame(restarted_ns, STILL, 50)
    history.add_frame(restarted_ns + STEP_NS, STILL, 51)
    assert len(history.tracks_at(restarted_ns + STEP_NS)) == 0 and history.tracks_at(stamp(49)) is None


def test_tracks_outlive_the_limit_of_stored_frames():
    """Static objects are tracked until they are too uncertain, over any number of frames."""
    history, step_ns = TrackingHistory(), 1_000_000
    history.add_frame(10**9, STILL, 0)
    history.add_detections(10**9, scene(0), SIZE)
    last = 3 * MAX_FRAMES
    for n in range(1, last + 1):
        history.add_frame(10**9 + n * step_ns, STILL, n)
    assert len(history) == MAX_FRAMES
    tracks = history.tracks_at(10**9 + last * step_ns)
    assert tracks.age_ms == pytest.approx([last, last])
    assert history.tracks_at(10**9) is None
    # An inference that took longer than that: ids, and no harm.
    assert len(history.add_detections(10**9 + 1, scene(0), SIZE)) == 2
    assert history.tracks_at(10**9 + last * step_ns).ids.tolist() == tracks.ids.tolist()


def test_threads_may_add_and_query_concurrently():
    history, errors, end = TrackingHistory(), [], 600

    def guarded(work) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except Exception as error:
                errors.append(error)

        return threading.Thread(target=run)

    def add() -> None:
        for n in range(end):
            history.add_frame(stamp(n), STILL, n)
            history.tracks_at(stamp(n))

    def look() -> None:
        for n in range(0, end, 7):
            history.add_detections(stamp(n), scene(0), SIZE)

    threads = [guarded(add), guarded(look), guarded(add)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    history.add_frame(stamp(end), STILL, end)
    history.add_detections(stamp(end), scene(0), SIZE)
    history.add_frame(stamp(end + 1), STILL, end + 1)
    assert len(history.tracks_at(stamp(end + 1))) == 2


def test_reading_tracks_early_or_adding_detections_twice_changes_nothing():
    plain, prepared, twice = history_of(6), history_of(6), history_of(6)
    for n in (0, 2, 4):
        prepared.tracks_at(stamp(n))
        ids = [
            history.add_detections(stamp(n), scene(n), SIZE).tolist() for history in (plain, prepared, twice)
        ]
        assert ids[0] == ids[1] == ids[2]
        if n:
            twice.add_detections(stamp(n), scene(n), SIZE)
    for history in (prepared, twice):
        np.testing.assert_array_equal(history.tracks_at(stamp(5)).xyxy_px, plain.tracks_at(stamp(5)).xyxy_px)
    assert prepared.tracks_at(stamp(99)) is None


def test_a_late_result_invalidates_frames_whose_tracks_were_read():
    plain, prepared = history_of(4), history_of(4)
    for history in (plain, prepared):
        history.add_detections(stamp(0), scene(0), SIZE)
    prepared.tracks_at(stamp(3))
    for history in (plain, prepared):
        history.add_detections(stamp(1), scene(1), SIZE)
        history.add_detections(stamp(3), scene(3), SIZE)
    np.testing.assert_array_equal(prepared.tracks_at(stamp(3)).xyxy_px, plain.tracks_at(stamp(3)).xyxy_px)


def test_motion_between_two_frames():
    history = TrackingHistory()
    for n, motion in enumerate([shift(1.0), shift(2.0), STILL, shift(-7.0), None, STILL]):
        history.add_frame(stamp(n), motion, n)
    np.testing.assert_array_equal(history.motion_between(stamp(0), stamp(3)), shift(-5.0))
    np.testing.assert_array_equal(history.motion_between(stamp(4), stamp(5)), STILL)
    assert history.motion_between(stamp(0), stamp(4)) is None, "unknown on the way"
    assert history.motion_between(stamp(0), stamp(9)) is None and history.motion_between(5, stamp(3)) is None
