"""Events, delays, F1 and gaps, on tables whose truth is written by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from box_cases import Box, boxes
from evaluate_cases import HERE, NEAR, PERIOD_NS, THERE, reference

from edge_vision.core.geometry.boxes import iou_matrix, overlaps_object, true_positives
from edge_vision.evaluate.chains.simulate import Published, with_tracker, without_tracker
from edge_vision.evaluate.metrics import (
    Cost,
    Delay,
    event_delay,
    figures,
    frame_f1,
    worst_gap_moving_ms,
    worst_gap_ms,
)
from edge_vision.evaluate.reference.events import Entry, Event, clip_entries, clustered, constructed_entries


def test_iou_of_boxes_computed_by_hand() -> None:
    a = np.array([HERE, (0, 0, 10, 10), (5, 5, 5, 9)], np.float32)
    b = np.array([NEAR, (5, 0, 15, 10)], np.float32)
    expected = [[35 / 45, 0.0], [0.0, 50 / 150], [0.0, 0.0]]
    assert iou_matrix(a, b) == pytest.approx(np.array(expected))


def test_a_box_tells_of_an_object_from_iou_0_3_on_whatever_its_class() -> None:
    target = np.array((0.0, 0.0, 10.0, 10.0), np.float32)
    assert overlaps_object(boxes((0, 0, 10, 3.1), class_id=7), target)
    assert not overlaps_object(boxes((0, 0, 10, 2.9)), target)
    assert not overlaps_object(boxes(), target)


@pytest.mark.parametrize(
    ("published", "found", "right"),
    [
        ([HERE], [NEAR], 1),
        ([HERE], [THERE], 0),
        ([HERE, NEAR], [HERE], 1),
        ([HERE, THERE], [NEAR, THERE], 2),
        ([], [HERE], 0),
        ([HERE], [], 0),
    ],
)
def test_each_box_counts_once(published: list[Box], found: list[Box], right: int) -> None:
    assert true_positives(boxes(*published), boxes(*found)) == right


def test_another_class_is_another_box() -> None:
    assert true_positives(boxes(HERE, class_id=1), boxes(HERE, class_id=2)) == 0


def test_an_entry_begins_where_the_detector_sees_it_and_ends_with_the_truth() -> None:
    table = reference(
        found=[[], [], [THERE], [NEAR], [], [HERE], []],
        truth=[{}, {1: HERE}, {1: HERE}, {1: HERE, 2: (0, 0, 50, 50)}, {1: HERE}, {1: HERE}, {}],
    )
    # Object 2 is never seen, so it is no entry.
    assert constructed_entries(table) == [Entry(1, 3, 5)]


def test_entries_within_200_ms_of_the_first_are_one_event() -> None:
    entries = [Entry(i, first, first + 9) for i, first in enumerate([10, 16, 17, 23, 24, 40])]
    events = clustered(entries, np.arange(60) * 33_333_333)
    # 6 frames are 200 ms. Frame 17 is within 200 ms of 16, but not of 10, which began the event.
    assert [[entry.first for entry in event.entries] for event in events] == [[10, 16], [17, 23], [24], [40]]


def _event(*entries: Entry) -> Event:
    return Event(entries)


@pytest.mark.parametrize(
    ("seen_at", "expected"),
    [
        ([2], Delay(0.0, False)),
        ([1], Delay(4 * PERIOD_NS * 1e-6, True)),
        ([4, 5], Delay(2 * PERIOD_NS * 1e-6, False)),
        ([], Delay(4 * PERIOD_NS * 1e-6, True)),
        ([7], Delay(4 * PERIOD_NS * 1e-6, True)),
    ],
)
def test_delay_is_from_the_first_frame_to_the_first_box_until_it_left(
    seen_at: list[int], expected: Delay
) -> None:
    table = reference([[]] * 9, [{1: HERE} if 2 <= at <= 6 else {} for at in range(9)])
    published = [boxes(NEAR) if at in seen_at else boxes(THERE) for at in range(9)]
    delay = event_delay(_event(Entry(1, 2, 6)), published, table.truth, table.stamps_ns)
    assert delay.missed == expected.missed
    assert delay.ms == pytest.approx(expected.ms)


def test_the_delay_of_a_group_is_that_of_the_last_one_told_of() -> None:
    table = reference([[]] * 9, [{1: HERE, 2: THERE}] * 9)
    published = [boxes(HERE) if at < 5 else boxes(HERE, THERE) for at in range(9)]
    delay = event_delay(_event(Entry(1, 0, 8), Entry(2, 1, 8)), published, table.truth, table.stamps_ns)
    assert delay == Delay(pytest.approx(4 * PERIOD_NS * 1e-6), False)
    published = [boxes(HERE)] * 9
    assert event_delay(_event(Entry(1, 0, 8), Entry(2, 1, 8)), published, table.truth, table.stamps_ns).missed


def test_three_periods_of_30_hz_are_within_100_ms_and_four_are_not() -> None:
    assert Delay(3 * PERIOD_NS * 1e-6, False).within(100)
    assert Delay(100.0000001, False).within(100)
    assert not Delay(4 * PERIOD_NS * 1e-6, False).within(100)
    assert not Delay(0.0, True).within(100)


def test_f1_is_pooled_over_frames() -> None:
    table = reference([[HERE], [HERE, THERE], [], [THERE]])
    published = Published(
        np.array([True, False, False, False]), [boxes(HERE), boxes(NEAR), boxes(HERE), boxes()]
    )
    # Right: 1 + 1. Published: 1 + 1 + 1 + 0. There: 1 + 2 + 0 + 1.
    assert frame_f1(published, table) == pytest.approx(2 * 2 / (3 + 4))


def test_f1_of_nothing_is_unknown() -> None:
    table = reference([[], []])
    assert frame_f1(without_tracker(np.array([True, False]), table), table) is None


def test_worst_gap_counts_the_end() -> None:
    stamps_ns = np.arange(10) * 100_000_000
    passed = np.zeros(10, bool)
    passed[[0, 2, 5]] = True
    assert worst_gap_ms(passed, stamps_ns) == 400.0
    passed[8] = True
    assert worst_gap_ms(passed, stamps_ns) == 300.0


def test_worst_gap_while_moving_restarts_where_the_camera_rests() -> None:
    stamps_ns = np.arange(12) * 100_000_000
    passed, moving = np.zeros(12, bool), np.ones(12, bool)
    passed[[0, 3]] = True
    moving[8] = False
    # Blind from frame 3 on: moving until frame 7, and from frame 9 to 11, which began to move after 8.
    assert worst_gap_moving_ms(passed, stamps_ns, moving) == 400.0
    assert worst_gap_moving_ms(passed, stamps_ns, np.zeros(12, bool)) is None


def test_figures_of_a_method_that_looks_every_fourth_frame() -> None:
    n = 12
    truth = [{1: HERE} if at >= 5 else {} for at in range(n)]
    table = reference([[HERE] if at >= 5 else [] for at in range(n)], truth)
    events = clustered(constructed_entries(table), table.stamps_ns)
    published = without_tracker(np.arange(n) % 4 == 0, table)
    cost = Cost(ms=[1.0] * 9 + [2.0, 3.0, 4.0], cpu_s=0.012)
    result = figures(published, table, table.truth, events, cost, Counter(still=9, motion=3))
    # Seen from frame 5 on, looked at on frame 8: 100 ms.
    assert result["delay_ms_p95"] == pytest.approx(3 * PERIOD_NS * 1e-6)
    assert result["recall_100ms"] == 1.0
    assert result["recall_100ms_lower95"] == pytest.approx(0.05)
    assert result["calls_share"] == 0.25
    # Right on frame 8 alone, of 7 frames with the object.
    assert result["frame_f1"] == pytest.approx(2 * 1 / (1 + 7))
    assert result["gate_ms_p50"] == 1.0
    assert result["gate_ms_p95"] == 4.0
    assert result["cpu_s_per_1000"] == pytest.approx((0.012 / 12 + 0.25 * 0.02) * 1000)
    assert result["reasons"] == {"motion": 3, "still": 9}
    assert result["missed_frames"] == []


def test_no_events_leave_recall_unknown() -> None:
    table = reference([[], []])
    result = figures(without_tracker(np.array([True, True]), table), table, table.truth, [], Cost())
    assert result["recall_100ms"] is None
    assert result["delay_ms_p95"] is None
    assert result["gate_ms_p50"] is None


def test_the_tracker_carries_boxes_and_is_told_the_camera_motion() -> None:
    # The camera turns: the object stands, and goes 20 px to the left on each frame.
    found = [[(300.0 - 20 * at, 100.0, 340.0 - 20 * at, 200.0)] for at in range(8)]
    table = reference(found)
    passed = np.array([True] + [False] * 7)
    motion = np.array([[1.0, 0.0, -20.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    led = with_tracker(passed, table, [motion] * 8)
    assert frame_f1(led, table) == 1.0
    not_led = frame_f1(with_tracker(passed, table), table)
    assert not_led is not None
    assert not_led < 0.5


def test_births_of_a_clip_are_confirmed_tracks_that_were_not_there_before() -> None:
    def at(frame: int) -> list[Box]:
        found: list[Box] = []
        if frame >= 0:
            found.append((500.0, 50.0, 560.0, 200.0))  # there from the start
        if 10 <= frame < 40 or frame >= 50:
            found.append(HERE)  # comes, is lost for 10 frames, and is back
        if frame in (20, 22):
            found.append(THERE)  # seen twice only
        return found

    table = reference([at(frame) for frame in range(80)])
    entries, truth = clip_entries(table)
    assert [(entry.first, entry.last) for entry in entries] == [(10, 79)]
    assert truth[45][entries[0].object_id] == pytest.approx(np.array(HERE))


def test_who_comes_back_after_two_seconds_comes_in_again() -> None:
    seen = [10 <= frame < 30 or frame >= 95 for frame in range(130)]
    entries, _ = clip_entries(reference([[HERE] if there else [] for there in seen]))
    assert [entry.first for entry in entries] == [10, 95]
    seen = [10 <= frame < 30 or frame >= 85 for frame in range(130)]
    entries, _ = clip_entries(reference([[HERE] if there else [] for there in seen]))
    assert [entry.first for entry in entries] == [10]
