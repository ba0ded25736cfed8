"""Events, delays and metrics, on references with hand-written boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from box_cases import Box, boxes
from evaluate_cases import HERE, NEAR, PERIOD_NS, THERE, condition_data, reference

from edge_vision.core.geometry.boxes import iou_matrix, true_positives
from edge_vision.evaluate.condition_data import ConditionData
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.metrics.builtin import BY_NAME, METRICS
from edge_vision.evaluate.metrics.delays import EventDelay, event_delay
from edge_vision.evaluate.metrics.frame_f1 import ghost_boxes
from edge_vision.evaluate.metrics.metric import Cost, MethodRun, Metric, compute_all, load_metrics
from edge_vision.evaluate.reference.events import (
    Entry,
    Event,
    clip_entries,
    clustered,
    constructed_entries,
    overlaps_object,
)
from edge_vision.evaluate.simulation import Published, with_held_boxes, with_tracks, without_tracker
from edge_vision.evaluate.tables import metrics_table

PERIOD_MS = PERIOD_NS * 1e-6


def compute(name: str, published: Published, data: ConditionData, cost: Cost | None = None) -> float | None:
    """One metric of what was published."""
    return BY_NAME[name].compute(MethodRun(data, published, cost or Cost()))


def test_iou_matches_values_computed_by_hand() -> None:
    a = np.array([HERE, (0, 0, 10, 10), (5, 5, 5, 9)], np.float32)
    b = np.array([NEAR, (5, 0, 15, 10)], np.float32)
    expected = [[35 / 45, 0.0], [0.0, 50 / 150], [0.0, 0.0]]
    assert iou_matrix(a, b) == pytest.approx(np.array(expected))


def test_a_box_overlaps_an_object_from_iou_0_3_whatever_its_class() -> None:
    target = np.array((0.0, 0.0, 10.0, 10.0), np.float32)
    assert overlaps_object(boxes((0, 0, 10, 3.1), class_id=7), target)
    assert not overlaps_object(boxes((0, 0, 10, 2.9)), target)
    assert not overlaps_object(boxes(), target)


@pytest.mark.parametrize(
    ("published", "found", "matches"),
    [
        ([HERE], [NEAR], 1),
        ([HERE], [THERE], 0),
        ([HERE, NEAR], [HERE], 1),
        ([HERE, THERE], [NEAR, THERE], 2),
        ([], [HERE], 0),
        ([HERE], [], 0),
    ],
)
def test_each_box_matches_at_most_once(published: list[Box], found: list[Box], matches: int) -> None:
    assert true_positives(boxes(*published), boxes(*found)) == matches


def test_boxes_of_different_classes_do_not_match() -> None:
    assert true_positives(boxes(HERE, class_id=1), boxes(HERE, class_id=2)) == 0


def test_a_constructed_entry_starts_with_the_first_detection_and_ends_with_the_ground_truth() -> None:
    table = reference(
        [[], [], [THERE], [NEAR], [], [HERE], [HERE], [HERE], [HERE], []],
        [{}, {1: HERE}, {1: HERE}, {1: HERE, 2: (0, 0, 50, 50)}, *[{1: HERE}] * 6],
    )
    # Object 2 is never detected, so it has no entry. Frames 5 to 8 are 100 ms.
    assert constructed_entries(table) == [Entry(1, 3, 9, steady=5)]


def test_an_object_that_the_detector_finds_on_single_frames_only_has_no_entry() -> None:
    truth: list[dict[int, Box]] = [{1: HERE}] * 10
    assert constructed_entries(reference([[HERE], [HERE], [HERE], []] * 2 + [[]] * 2, truth)) == []


def test_entries_within_200_ms_of_the_first_are_one_event() -> None:
    entries = [Entry(i, first, first + 9, first) for i, first in enumerate([10, 16, 17, 23, 24, 40])]
    events = clustered(entries, np.arange(60) * 33_333_333)
    # 6 frames are 200 ms. Frame 17 is within 200 ms of 16, but not of 10, which started the event.
    assert [[entry.first for entry in event.entries] for event in events] == [[10, 16], [17, 23], [24], [40]]


@pytest.mark.parametrize(
    ("shown_at", "expected"),
    [
        ([2], EventDelay(0.0, False)),
        ([1], EventDelay(4 * PERIOD_MS, True)),
        ([4, 5], EventDelay(2 * PERIOD_MS, False)),
        ([], EventDelay(4 * PERIOD_MS, True)),
        ([7], EventDelay(4 * PERIOD_MS, True)),
    ],
)
def test_a_delay_lasts_from_the_entry_to_the_first_published_box(
    shown_at: list[int], expected: EventDelay
) -> None:
    event = Event((Entry(1, 2, 6, steady=2),))
    data = condition_data(reference([[]] * 9, [{1: HERE} if 2 <= at <= 6 else {} for at in range(9)]))
    delay = event_delay(event, [boxes(NEAR) if at in shown_at else boxes(THERE) for at in range(9)], data)
    assert delay.missed == expected.missed
    assert delay.ms == pytest.approx(expected.ms)


def test_the_delay_of_an_event_is_that_of_its_last_published_entry() -> None:
    event = Event((Entry(1, 0, 8, 0), Entry(2, 1, 8, 1)))
    data = condition_data(reference([[]] * 9, [{1: HERE, 2: THERE}] * 9))
    published = [boxes(HERE) if at < 5 else boxes(HERE, THERE) for at in range(9)]
    assert event_delay(event, published, data) == EventDelay(pytest.approx(4 * PERIOD_MS), False)
    assert event_delay(event, [boxes(HERE)] * 9, data).missed


def test_a_delay_counts_from_the_first_steady_frame_and_is_never_negative() -> None:
    data = condition_data(reference([[]] * 9, [{1: HERE}] * 9))
    event = Event((Entry(1, 0, 8, steady=4),))
    late = [boxes(HERE) if at >= 6 else boxes() for at in range(9)]
    assert event_delay(event, late, data) == EventDelay(pytest.approx(2 * PERIOD_MS), False)
    assert event_delay(event, [boxes(HERE)] * 9, data) == EventDelay(0.0, False)


def test_three_periods_of_30_hz_are_within_100_ms_and_four_are_not() -> None:
    assert EventDelay(3 * PERIOD_MS, False).within(100)
    assert EventDelay(100.0000001, False).within(100)
    assert not EventDelay(4 * PERIOD_MS, False).within(100)
    assert not EventDelay(0.0, True).within(100)


def test_frame_f1_is_pooled_over_frames() -> None:
    table = reference([[HERE], [HERE, THERE], [], [THERE]])
    inferred = np.array([True, False, False, False])
    published = Published(inferred, [boxes(HERE), boxes(NEAR), boxes(HERE), boxes()])
    # Matched: 1 + 1. Published: 1 + 1 + 1 + 0. Expected: 1 + 2 + 0 + 1.
    assert compute("frame_f1", published, condition_data(table)) == pytest.approx(2 * 2 / (3 + 4))


def test_frame_f1_is_unknown_without_boxes() -> None:
    table = reference([[], []])
    assert compute("frame_f1", without_tracker(np.array([True, False]), table), condition_data(table)) is None


def test_ghosts_are_predicted_boxes_from_a_cut_to_the_next_inference_that_overlap_nothing() -> None:
    shown = [boxes(HERE, THERE)] * 6
    inferred = [True, False, False, True, False, False]
    expected = [boxes()] * 2 + [boxes(NEAR)] + [boxes()] * 3
    assert ghost_boxes(shown, inferred, expected, cuts=[]) == 0
    # Frame 1 shows two boxes, frame 2 one that is not there; frame 3 is inferred.
    assert ghost_boxes(shown, inferred, expected, cuts=[1]) == 3
    assert ghost_boxes(shown, inferred, expected, cuts=[3]) == 0
    assert ghost_boxes(shown, inferred, expected, cuts=[3, 4]) == 4


def test_held_boxes_are_those_of_the_last_inference() -> None:
    table = reference([[HERE], [NEAR], [THERE], [NEAR]])
    published = with_held_boxes(np.array([True, False, True, False]), table)
    assert [one.xyxy_px.tolist() for one in published.detections] == [
        [list(box)] for box in (HERE, HERE, THERE, THERE)
    ]


def test_the_worst_gap_includes_the_end() -> None:
    table = reference([[]] * 10)
    inferred = np.zeros(10, bool)
    inferred[[0, 2, 5]] = True
    data = condition_data(table)
    assert compute("worst_gap_ms", without_tracker(inferred, table), data) == pytest.approx(4 * PERIOD_MS)
    inferred[8] = True
    assert compute("worst_gap_ms", without_tracker(inferred, table), data) == pytest.approx(3 * PERIOD_MS)


def test_all_metrics_of_a_method_that_infers_every_fourth_frame() -> None:
    n = 12
    ground_truth = [{1: HERE} if at >= 5 else {} for at in range(n)]
    table = reference([[HERE] if at >= 5 else [] for at in range(n)], ground_truth)
    data = condition_data(table, clustered(constructed_entries(table), table.stamps_ns))
    published = without_tracker(np.arange(n) % 4 == 0, table)
    cost = Cost(decision_ms=[1.0] * 9 + [2.0, 3.0, 4.0], cpu_s=0.012)
    figures = compute_all(METRICS, MethodRun(data, published, cost))
    # Detected from frame 5 on, inferred on frame 8: 100 ms.
    assert figures["delay_ms_p95"] == pytest.approx(3 * PERIOD_MS)
    assert figures["recall_100ms"] == 1.0
    assert figures["recall_low95"] == pytest.approx(0.05)
    assert figures["inferred_share"] == 0.25
    assert figures["detector_runs"] == 3
    # One match on frame 8, of 7 frames with the object.
    assert figures["frame_f1"] == pytest.approx(2 * 1 / (1 + 7))
    assert figures["gate_ms_p50"] == 1.0
    assert figures["gate_ms_p95"] == 4.0
    assert figures["cpu_s_per_1000"] == pytest.approx((0.012 / 12 + 0.25 * 0.02) * 1000)
    assert figures["id_switches"] is None


def test_recall_and_delay_are_unknown_without_events() -> None:
    table = reference([[], []])
    run = MethodRun(condition_data(table), without_tracker(np.array([True, True]), table), Cost())
    figures = compute_all(METRICS, run)
    assert figures["recall_100ms"] is figures["delay_ms_p95"] is figures["gate_ms_p50"] is None


def test_a_tracker_predicts_boxes_with_the_camera_motion() -> None:
    # The camera pans: the object stands still, and shifts by 20 px to the left on each frame.
    table = reference([[(560.0 - 20 * at, 100.0, 600.0 - 20 * at, 200.0)] for at in range(20)])
    data, inferred = condition_data(table), np.array([True] * 13 + [False] * 7)
    motion = np.array([[1.0, 0.0, -20.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert compute("frame_f1", with_tracks(inferred, table, [motion] * 20), data) == 1.0
    without_motion = compute("frame_f1", with_tracks(inferred, table), data)
    assert without_motion is not None
    assert without_motion < 0.75  # 13 of the 20 frames are inferred.


def test_entries_of_a_clip_are_confirmed_tracks_that_did_not_exist_before() -> None:
    def at(frame: int) -> list[Box]:
        found: list[Box] = [(500.0, 50.0, 560.0, 200.0)]  # in view from the start
        if 10 <= frame < 40 or frame >= 50:
            found.append(HERE)  # enters, is lost for 10 frames, and reappears
        if frame in (20, 22):
            found.append(THERE)  # detected only twice
        return found

    entries, object_boxes = clip_entries(reference([at(frame) for frame in range(80)]))
    assert [(entry.first, entry.last) for entry in entries] == [(10, 79)]
    assert object_boxes[45][entries[0].object_id] == pytest.approx(np.array(HERE))


def test_an_object_that_reappears_after_two_seconds_enters_again() -> None:
    visible = [10 <= frame < 30 or frame >= 95 for frame in range(130)]
    entries, _ = clip_entries(reference([[HERE] if there else [] for there in visible]))
    assert [entry.first for entry in entries] == [10, 95]
    visible = [10 <= frame < 30 or frame >= 85 for frame in range(130)]
    entries, _ = clip_entries(reference([[HERE] if there else [] for there in visible]))
    assert [entry.first for entry in entries] == [10]


def test_the_box_of_an_object_is_interpolated_between_two_detections() -> None:
    def at(frame: int) -> Box:
        return (100.0 + 10 * frame, 100.0, 140.0 + 10 * frame, 200.0)

    # Detected on frames 5 to 8, not while it moves on by 110 px, and again on frame 20.
    detected = [5, 6, 7, 8, *range(20, 30)]
    table = reference([[at(frame)] if frame in detected else [] for frame in range(30)])
    entries, object_boxes = clip_entries(table)
    assert [(entry.first, entry.last) for entry in entries] == [(5, 29)]
    for frame in range(5, 30):
        assert object_boxes[frame][entries[0].object_id] == pytest.approx(np.array(at(frame)), abs=1e-3)
    published = [boxes(at(frame)) if frame >= 10 else boxes() for frame in range(30)]
    data = ConditionData(table, clustered(entries, table.stamps_ns), object_boxes)
    # 167 ms; with the box of frame 8 until frame 20 it would be 500 ms.
    assert event_delay(data.events[0], published, data) == EventDelay(pytest.approx(5 * PERIOD_MS), False)


def test_fidelity_is_the_frame_f1_relative_to_the_noise_ceiling() -> None:
    table = reference([[HERE], [HERE]])
    published = without_tracker(np.array([True, False]), table)
    assert compute("fidelity", published, condition_data(table)) is None
    data = ConditionData(table, (), table.ground_truth, noise_ceiling=0.9)
    assert compute("fidelity", published, data) == pytest.approx(2 / 3 / 0.9)


def test_each_metric_describes_itself_for_the_documentation() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    table = metrics_table(METRICS)
    for metric in METRICS:
        assert f"| `{metric.name}` | {metric.unit} | " in table
        assert metric.doc[0].isupper() and not metric.doc.endswith(".")


class BoxCount(Metric):
    name, column, unit, better = "box_count", "boxes", "count", None
    doc = "Number of published boxes"

    def compute(self, run: MethodRun) -> float:
        return sum(len(boxes) for boxes in run.published.detections)


class Fails(BoxCount):
    name = "fails"

    def compute(self, run: MethodRun) -> float:
        raise ZeroDivisionError("no boxes")


class TakesAName(BoxCount):
    name = "frame_f1"


class NeedsArguments(BoxCount):
    def __init__(self, limit: int) -> None:
        self.limit = limit


def test_a_third_party_metric_is_computed_beside_the_built_in_ones() -> None:
    metrics = load_metrics(METRICS, [f"{__name__}:BoxCount"])
    table = reference([[HERE], [HERE, THERE]])
    run = MethodRun(condition_data(table), without_tracker(np.array([True, True]), table), Cost())
    assert compute_all(metrics, run)["box_count"] == 3
    assert metrics[-1].text(3) == "3"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("metric", "expected a metric as module:Class"),
        (f"{__name__}:Absent", "cannot be imported: AttributeError"),
        (f"{__name__}:compute", "expected a subclass of Metric"),
        (f"{__name__}:NeedsArguments", "cannot be made without arguments: TypeError"),
        (f"{__name__}:TakesAName", "the name 'frame_f1' is taken"),
    ],
)
def test_an_unusable_metric_is_refused(path: str, message: str) -> None:
    with pytest.raises(EvaluateError, match=message):
        load_metrics(METRICS, [path])


def test_a_metric_that_raises_is_named() -> None:
    run: Any = None
    with pytest.raises(EvaluateError, match="metric 'fails' failed: ZeroDivisionError: no boxes"):
        compute_all([Fails()], run)


def test_the_documentation_lists_the_metrics() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "cascade_evaluation.md"
    assert metrics_table(METRICS) in page.read_text("utf-8"), "copy the output of `evaluate metrics`"
