"""Pictures and the tracks of their own stamp, in whatever order topics arrive; what became of each frame."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vision.web.pairing import (
    HOLD_S,
    INFERENCE_S,
    JUMP_NS,
    MAX_HELD,
    MAX_HELD_BYTES,
    MAX_MOMENTS,
    NO_RESULT,
    FramePairing,
)

PERIOD_S = 0.1
MS = 1_000_000


def arrive(pairing: FramePairing, what: str, stamp_ns: int, now_s: float, fate: str = "gated") -> None:
    if what == "image":
        pairing.add_image(stamp_ns, b"image %d" % stamp_ns, now_s)
    elif what == "tracks":
        pairing.add_tracks(stamp_ns, b"tracks %d" % stamp_ns, now_s)
    elif what == "event":
        pairing.add_event(stamp_ns, fate, "still", now_s)
    else:
        pairing.add_detections(stamp_ns, 12.0, now_s)


@pytest.mark.parametrize("order", list(itertools.permutations(("image", "tracks", "event"))))
def test_a_skipped_frame_is_shown_once_all_of_it_is_there(order: tuple[str, ...]) -> None:
    pairing = FramePairing(PERIOD_S, 0.0)
    for number, what in enumerate(order):
        assert pairing.take(1.0) is None, order[:number]
        arrive(pairing, what, 7, 1.0)
    shown = pairing.take(1.0)
    assert shown is not None and shown.kind == "predicted" and shown.reason == "still"
    assert (shown.image, shown.tracks) == (b"image 7", b"tracks 7")
    assert pairing.take(1.0 + PERIOD_S) is None
    assert pairing.take_records(1.0) == [(7, "gated", "still", None)]


@pytest.mark.parametrize("order", list(itertools.permutations(("image", "tracks", "event", "detections"))))
def test_a_frame_with_detections_is_inferred_with_the_gates_reason(order: tuple[str, ...]) -> None:
    pairing = FramePairing(PERIOD_S, 0.0)
    for what in order:
        arrive(pairing, what, 7, 1.0, fate="")
    shown = pairing.take(1.0)
    assert shown is not None and shown.kind == "inferred" and shown.tracks == b"tracks 7"
    (record,) = pairing.take_records(1.0)
    assert (record.outcome, record.age_ms) == ("inferred", 12.0)
    assert record.reason == ("still" if order.index("event") < order.index("detections") else "")


@given(st.integers(0, 2**32), st.floats(0.0, 0.3))
def test_a_shown_picture_always_has_the_tracks_of_its_stamp_and_time_goes_on(seed: int, loss: float) -> None:
    """Four topics without order among each other, each in its own order, with losses."""
    chance = random.Random(seed)
    arrivals = []
    for topic in ("image", "tracks", "event", "detections"):
        at_s = 0.0
        for number in range(1, 60):
            at_s = max(at_s, number * 0.033 + chance.random() * 0.15)
            if chance.random() >= loss and (topic != "detections" or number % 5 == 0):
                arrivals.append((at_s, topic, number * 33 * MS))
    pairing, shown = FramePairing(PERIOD_S, 0.0), []
    for at_s, topic, stamp_ns in sorted(arrivals):
        arrive(pairing, topic, stamp_ns, at_s, "" if stamp_ns // MS % 5 == 0 else "gated")
        taken = pairing.take(at_s)
        if taken is not None and taken.tracks is not None:
            assert (
                taken.image == b"image %d" % taken.stamp_ns and taken.tracks == b"tracks %d" % taken.stamp_ns
            )
            assert taken.kind in ("inferred", "predicted")
            shown.append((taken.stamp_ns, at_s))
    stamps, times = [one[0] for one in shown], [one[1] for one in shown]
    assert stamps == sorted(set(stamps))
    assert len(times) <= 2 + (times[-1] - times[0]) / PERIOD_S if times else True
    assert shown or loss > 0.05


def test_the_rate_is_limited_and_a_camera_of_that_rate_loses_nothing() -> None:
    def rate(period_s: float) -> float:
        pairing, count = FramePairing(PERIOD_S, 0.0), 0
        for number in range(300):
            now_s = number * period_s + (0.01 if number % 2 else 0.0)
            for what in ("image", "tracks", "event"):
                arrive(pairing, what, number * round(period_s * 1e9) + 1, now_s)
            count += pairing.take(now_s) is not None
        return count / (300 * period_s)

    assert 9.5 < rate(0.1) <= 10.1 and 9.0 < rate(1 / 30) <= 10.1 and 4.8 < rate(0.2) <= 5.1


def test_without_tracks_pictures_are_shown_without_boxes_and_with_them_again_only_with() -> None:
    pairing = FramePairing(PERIOD_S, 0.0)
    arrive(pairing, "image", 1, 0.2)
    assert pairing.take(0.2) is None
    assert pairing.take_records(HOLD_S) == []
    arrive(pairing, "image", 2, HOLD_S + 0.1)
    assert pairing.take(HOLD_S + 0.1) is None
    assert pairing.take_records(HOLD_S + 0.3) == []
    shown = pairing.take(HOLD_S + 0.3)
    assert shown is not None and shown.tracks is None and shown.kind == "" and shown.image == b"image 2"
    arrive(pairing, "tracks", 3, HOLD_S + 0.5)
    arrive(pairing, "image", 4, HOLD_S + 0.5)
    assert pairing.take(HOLD_S + 0.5) is None


def test_at_a_low_rate_no_picture_comes_without_its_boxes() -> None:
    pairing, now_s = FramePairing(PERIOD_S, 0.0), 0.0
    for number in range(1, 6):
        arrive(pairing, "image", number, now_s)
        for what in ("event", "tracks"):
            for _ in range(5):
                now_s += 0.1
                assert pairing.take_records(now_s) == [] or what == "tracks"
                assert pairing.take(now_s) is None
            arrive(pairing, what, number, now_s)
        shown = pairing.take(now_s)
        assert shown is not None and shown.stamp_ns == number and shown.tracks is not None
        now_s += 2 * HOLD_S
        pairing.take_records(now_s)
        assert pairing.take(now_s) is None


@pytest.mark.parametrize("fate", ["superseded", "failed", "rejected"])
def test_each_fate_is_recorded_once_with_its_reason(fate: str) -> None:
    pairing = FramePairing(PERIOD_S, 0.0)
    pairing.add_event(5, fate, "gate", 0.0)
    pairing.add_event(5, fate, "gate", 0.0)
    assert pairing.take_records(0.0) == [(5, fate, "gate", None)]
    assert pairing.take_records(0.0) == []


def test_a_frame_without_a_result_is_recorded_after_the_wait() -> None:
    pairing = FramePairing(PERIOD_S, 0.0)
    pairing.add_event(5, "", "change", 0.0)
    assert pairing.take_records(HOLD_S) == []
    assert pairing.take_records(HOLD_S + 0.1) == [(5, NO_RESULT, "change", None)]


@pytest.mark.parametrize(("taken_s", "kind"), [(0.09, "inferred"), (0.2, "predicted")])
def test_a_frame_in_inference_is_shown_before_newer_ones_unless_that_takes_long(
    taken_s: float, kind: str
) -> None:
    """A camera of 30 Hz."""
    pairing, shown = FramePairing(PERIOD_S, 0.0), []
    for number in range(1, 20):
        now_s, stamp_ns = number * 0.033, number * 33 * MS
        if number == 2 + round(taken_s / 0.033):
            for what in ("tracks", "detections"):
                arrive(pairing, what, 2 * 33 * MS, now_s)
        shown.append(pairing.take(now_s))
        for what in ("image", "event") if number == 2 else ("image", "event", "tracks"):
            arrive(pairing, what, stamp_ns, now_s, "" if number == 2 else "gated")
        shown.append(pairing.take(now_s))
    found = [(one.stamp_ns // MS, one.kind) for one in shown if one is not None]
    assert found[0] == (33, "predicted") and found[1][1] == kind
    assert found[1][0] == 66 if kind == "inferred" else found[1][0] >= 33 + INFERENCE_S * 1e3
    assert all(kind == "predicted" for _, kind in found[2:]) and len(found) >= 4
    assert found == sorted(found)


def test_held_images_are_bounded_and_the_newest_stays() -> None:
    def held(pairing: FramePairing) -> list[int]:
        return [stamp for stamp, one in pairing._moments.items() if one.image is not None]

    pairing = FramePairing(PERIOD_S, 0.0)
    for stamp_ns in range(1, 3 * MAX_MOMENTS):
        arrive(pairing, "image", stamp_ns, 0.0)
        assert len(held(pairing)) <= MAX_HELD and len(pairing._moments) <= MAX_MOMENTS
    pairing = FramePairing(PERIOD_S, 0.0)
    for stamp_ns in (1, 2, 3):
        pairing.add_image(stamp_ns, bytes(MAX_HELD_BYTES // 2 + 1), 0.0)
        assert held(pairing) == [stamp_ns]
    assert len(pairing.take_records(HOLD_S + 0.1)) == 0 and held(pairing) == []


def test_a_file_that_begins_again_is_shown_again() -> None:
    pairing = FramePairing(PERIOD_S, 0.0)
    for number, stamp_ns in enumerate((10 * JUMP_NS, 1, 2)):
        for what in ("image", "tracks", "event"):
            arrive(pairing, what, stamp_ns, float(number))
        shown = pairing.take(float(number))
        assert shown is not None and shown.stamp_ns == stamp_ns
