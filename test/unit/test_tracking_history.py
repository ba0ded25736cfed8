"""What is found late is as if it had been found at once: the line against a tracker that is told in order."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_vision.core.detections import Detections
from edge_vision.tracking.tracker import Tracker
from edge_vision.tracking.tracking_history import LATEST_NS, MEMORY, TrackingHistory

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
    """Two objects: one walks to the right by 3 px a frame, one stands."""
    return found((100 + 3 * n, 100, 140 + 3 * n, 180), (400, 300, 460, 420))


def line_of(n: int, motion: np.ndarray | None = STILL) -> TrackingHistory:
    line = TrackingHistory()
    for at in range(n):
        line.add_frame(stamp(at), motion, at)
    return line


def told_in_order(frames: int, looked: set[int], motions: list, rests: list[bool]) -> dict[int, tuple]:
    tracker, out = Tracker(*SIZE), {}
    for n in range(frames):
        if n in looked:
            tracker.update(scene(n), stamp(n), motions[n])
        else:
            tracks = tracker.predict(stamp(n), motions[n], rests[n])
            out[n] = (tracks.xyxy_px, tracks.ids, tracks.age_ms)
    return out


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_late_and_out_of_order_is_as_in_order(data: st.DataObject) -> None:
    """Frames are told in any order, asked for at any time, and inferences end in order but however late."""
    frames = data.draw(st.integers(2, 25))
    looked = {0, *data.draw(st.sets(st.integers(0, frames - 1), max_size=6))}
    motions = [shift(x) for x in data.draw(st.lists(st.floats(-5, 5), min_size=frames, max_size=frames))]
    rests = data.draw(st.lists(st.booleans(), min_size=frames, max_size=frames))
    line, waiting = TrackingHistory(), sorted(looked)
    order = data.draw(st.permutations(range(frames)))
    told: set[int] = set()
    for n in order:
        line.add_frame(stamp(n), motions[n], n, rests[n])
        told.add(n)
        if data.draw(st.booleans()):
            assert line.tracks_at(stamp(n)) is not None
        # What is found on a frame comes when the frame and those before it are known, or later.
        while waiting and told.issuperset(range(waiting[0] + 1)) and data.draw(st.booleans()):
            line.add_detections(stamp(waiting[0]), scene(waiting[0]), SIZE)
            waiting.pop(0)
    for n in waiting:
        line.add_detections(stamp(n), scene(n), SIZE)
    for n, (xyxy_px, ids, age_ms) in told_in_order(frames, looked, motions, rests).items():
        tracks = line.tracks_at(stamp(n))
        assert tracks is not None
        np.testing.assert_array_equal(tracks.xyxy_px, xyxy_px)
        np.testing.assert_array_equal(tracks.ids, ids)
        np.testing.assert_array_equal(tracks.age_ms, age_ms)


def test_while_an_inference_runs_frames_show_what_was_known_before_it():
    line = line_of(6)
    line.add_detections(stamp(0), scene(0), SIZE)
    # Frame 2 is with the detector; 3, 4 and 5 are skipped meanwhile.
    before = [line.tracks_at(stamp(n)) for n in (3, 4, 5)]
    assert [one.age_ms.tolist() for one in before] == [[150, 150], [200, 200], [250, 250]]
    ids = line.add_detections(stamp(2), scene(2), SIZE)
    after = line.tracks_at(stamp(5))
    assert after.age_ms.tolist() == [150, 150]
    assert sorted(ids.tolist()) == sorted(after.ids.tolist()) == sorted(before[0].ids.tolist())
    # It has been seen to walk by now: frame 5 shows it further on than frame 2 did, as far as the truth.
    walker = after.xyxy_px[list(after.ids).index(ids[0])]
    assert 106 < walker[0] <= 115


def test_the_cameras_motion_moves_what_stands():
    line = TrackingHistory()
    for n in range(5):
        line.add_frame(stamp(n), shift(-7.0), n)
    line.add_detections(stamp(0), found((300, 100, 340, 180)), SIZE)
    tracks = line.tracks_at(stamp(4))
    assert tracks.xyxy_px.tolist() == [[300 - 28, 100, 340 - 28, 180]]


def test_before_the_first_inference_and_after_a_reset_nothing_is_known():
    line = line_of(3)
    assert len(line.tracks_at(stamp(2))) == 0
    first = line.add_detections(stamp(1), scene(1), SIZE)
    assert len(line.tracks_at(stamp(2))) == 2
    line.reset()
    assert line.tracks_at(stamp(2)) is None
    line.add_frame(stamp(3), STILL, 3)
    assert len(line.tracks_at(stamp(3))) == 0
    again = line.add_detections(stamp(3), scene(3), SIZE)
    assert not set(first.tolist()) & set(again.tolist()), "an id is never given twice"


def test_an_inference_from_before_a_reset_brings_nothing_back():
    line = line_of(4)
    line.reset(seq=10)
    line.add_frame(stamp(2), STILL, 2)  # It was on its way.
    assert line.tracks_at(stamp(2)) is None
    assert len(line.add_detections(stamp(2), scene(2), SIZE)) == 2, "it has ids all the same"
    line.add_frame(stamp(5), STILL, 11)
    assert len(line.tracks_at(stamp(5))) == 0


def test_after_an_unknown_motion_nothing_is_shown_until_the_detector_has_looked():
    """It may have been a cut."""
    line = line_of(2)
    ids = line.add_detections(stamp(0), scene(0), SIZE)
    line.add_frame(stamp(2), None, 2)
    line.add_frame(stamp(3), STILL, 3)
    assert [len(line.tracks_at(stamp(n))) for n in (1, 2, 3)] == [2, 0, 0]
    assert line.add_detections(stamp(2), scene(0), SIZE).tolist() == ids.tolist(), "it was none"
    assert len(line.tracks_at(stamp(3))) == 2
    line.add_frame(stamp(4), None, 4)
    line.add_frame(stamp(5), STILL, 5)
    line.add_detections(stamp(4), found(), SIZE)
    assert len(line.tracks_at(stamp(5))) == 0, "it was one"


def test_a_frame_that_is_told_late_does_not_undo_a_look():
    """A transport may bring it after the detector has looked at a later one."""
    line = TrackingHistory()
    for n in (0, 2, 3):
        line.add_frame(stamp(n), STILL, n)
    for n in (0, 2):
        line.add_detections(stamp(n), scene(n), SIZE)
    before = line.tracks_at(stamp(3))
    line.add_frame(stamp(1), shift(50.0), 4)
    after = line.tracks_at(stamp(3))
    np.testing.assert_array_equal(after.xyxy_px, before.xyxy_px)
    np.testing.assert_array_equal(after.age_ms, [50, 50])
    assert line.tracks_at(stamp(1)).xyxy_px[:, 0] == pytest.approx([150, 450])


def test_another_size_of_picture_ends_all_tracks():
    line = line_of(4)
    ids = line.add_detections(stamp(0), scene(0), SIZE)
    other = line.add_detections(stamp(2), scene(0), (320, 240))
    assert not set(ids.tolist()) & set(other.tolist())
    right = line.tracks_at(stamp(3)).xyxy_px[:, 2]
    assert right.max() <= 320.0


def test_stamps_that_start_anew_are_another_time():
    line = line_of(50)
    line.add_detections(stamp(49), scene(0), SIZE)
    anew = stamp(49) - LATEST_NS - 1
    line.add_frame(anew, STILL, 50)
    line.add_frame(anew + STEP_NS, STILL, 51)
    assert len(line.tracks_at(anew + STEP_NS)) == 0 and line.tracks_at(stamp(49)) is None


def test_the_memory_has_a_limit_and_tracks_live_beyond_it():
    """Objects that stand are known to the end of their certainty, however many frames pass."""
    line, step_ns = TrackingHistory(), 1_000_000
    line.add_frame(10**9, STILL, 0)
    line.add_detections(10**9, scene(0), SIZE)
    last = 3 * MEMORY
    for n in range(1, last + 1):
        line.add_frame(10**9 + n * step_ns, STILL, n)
    assert len(line._line) == MEMORY
    tracks = line.tracks_at(10**9 + last * step_ns)
    assert tracks.age_ms == pytest.approx([last, last])
    assert line.tracks_at(10**9) is None
    # An inference that took longer than that: ids, and no harm.
    assert len(line.add_detections(10**9 + 1, scene(0), SIZE)) == 2
    assert line.tracks_at(10**9 + last * step_ns).ids.tolist() == tracks.ids.tolist()


def test_threads_may_tell_ask_and_put_in_at_once():
    line, errors, end = TrackingHistory(), [], 600

    def guarded(work) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except Exception as error:
                errors.append(error)

        return threading.Thread(target=run)

    def tell() -> None:
        for n in range(end):
            line.add_frame(stamp(n), STILL, n)
            line.tracks_at(stamp(n))

    def look() -> None:
        for n in range(0, end, 7):
            line.add_detections(stamp(n), scene(0), SIZE)

    threads = [guarded(tell), guarded(look), guarded(tell)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    line.add_frame(stamp(end), STILL, end)
    line.add_detections(stamp(end), scene(0), SIZE)
    line.add_frame(stamp(end + 1), STILL, end + 1)
    assert len(line.tracks_at(stamp(end + 1))) == 2


def test_what_is_doubted_is_not_shown_until_the_detector_has_looked():
    line = line_of(3)
    ids = line.add_detections(stamp(0), scene(0), SIZE)
    there = np.array([[395, 295, 465, 425]], np.float32)  # The one that stands.
    line.add_frame(stamp(3), STILL, 3, changed_px=there)
    line.add_frame(stamp(4), STILL, 4)
    assert [line.tracks_at(stamp(n)).ids.tolist() for n in (2, 4)] == [ids.tolist(), ids[:1].tolist()]
    # The frame went to the detector: it is there after all.
    assert line.add_detections(stamp(3), scene(3), SIZE).tolist() == ids.tolist()
    assert line.tracks_at(stamp(4)).ids.tolist() == ids.tolist()


def test_a_doubt_that_covers_no_object_is_none():
    line = line_of(2)
    line.add_detections(stamp(0), scene(0), SIZE)
    far = np.array([[0, 0, 50, 50], [395, 295, 405, 305], [np.nan] * 4, [900, 900, 800, 800]], np.float32)
    line.add_frame(stamp(2), STILL, 2, changed_px=far)
    assert len(line.tracks_at(stamp(2))) == 2


def test_a_frame_that_was_prepared_or_is_told_of_twice_gives_the_same():
    plain, prepared, twice = line_of(6), line_of(6), line_of(6)
    for n in (0, 2, 4):
        prepared.advance_to(stamp(n))
        ids = [line.add_detections(stamp(n), scene(n), SIZE).tolist() for line in (plain, prepared, twice)]
        assert ids[0] == ids[1] == ids[2]
        if n:
            twice.add_detections(stamp(n), scene(n), SIZE)
    for line in (prepared, twice):
        np.testing.assert_array_equal(line.tracks_at(stamp(5)).xyxy_px, plain.tracks_at(stamp(5)).xyxy_px)
    prepared.advance_to(stamp(99))
    assert prepared.tracks_at(stamp(99)) is None


def test_what_was_prepared_before_a_late_result_is_followed_anew():
    plain, prepared = line_of(4), line_of(4)
    for line in (plain, prepared):
        line.add_detections(stamp(0), scene(0), SIZE)
    prepared.advance_to(stamp(3))
    for line in (plain, prepared):
        line.add_detections(stamp(1), scene(1), SIZE)
        line.add_detections(stamp(3), scene(3), SIZE)
    np.testing.assert_array_equal(prepared.tracks_at(stamp(3)).xyxy_px, plain.tracks_at(stamp(3)).xyxy_px)


def test_the_motion_between_two_frames():
    line = TrackingHistory()
    for n, motion in enumerate([shift(1.0), shift(2.0), STILL, shift(-7.0), None, STILL]):
        line.add_frame(stamp(n), motion, n)
    np.testing.assert_array_equal(line.motion_between(stamp(0), stamp(3)), shift(-5.0))
    np.testing.assert_array_equal(line.motion_between(stamp(4), stamp(5)), STILL)
    assert line.motion_between(stamp(0), stamp(4)) is None, "unknown on the way"
    assert line.motion_between(stamp(0), stamp(9)) is None and line.motion_between(5, stamp(3)) is None
