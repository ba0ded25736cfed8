"""Chains, id switches and savings, on references with hand-written boxes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from box_cases import Box, boxes
from evaluate_cases import HERE, NEAR, THERE, reference

from edge_vision.cascade.cascade import Cascade, CascadeDecision
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.geometry.boxes import NO_REGIONS
from edge_vision.evaluate.baselines import CameraMotionEstimator
from edge_vision.evaluate.chains.chain import Chain
from edge_vision.evaluate.chains.savings import (
    BASELINES,
    at_cost,
    baseline_at_recall,
    best_at_cost,
    checks,
    group_of,
)
from edge_vision.evaluate.metrics.id_switches import id_switches
from edge_vision.evaluate.reference.events import track_ids
from edge_vision.evaluate.simulation import with_tracks
from edge_vision.gate.frame_gate import GateConfig

PERIOD_NS = 33_333_333
HALF: Box = (120.0, 100.0, 160.0, 200.0)
"""IoU 1/3 with HERE, 25/55 with NEAR."""


def _switches(*frames: tuple[list[tuple[Box, int]], list[tuple[Box, int]]]) -> int:
    """Id switches over frames of (published, expected), each a list of (box, id)."""
    shown, there = [frame[0] for frame in frames], [frame[1] for frame in frames]

    def parts(lists: list[list[tuple[Box, int]]]) -> tuple[list[Detections], list[np.ndarray]]:
        ids = [np.array([number for _, number in one], np.int64) for one in lists]
        return [boxes(*[box for box, _ in one]) for one in lists], ids

    return id_switches(*parts(shown), *parts(there))


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        ([[(HERE, 5)], [(HERE, 5)], [(NEAR, 5)]], 0),
        ([[(HERE, 5)], [(HERE, 6)], [(HERE, 6)]], 1),
        ([[(HERE, 5)], [(HERE, 6)], [(HERE, 5)]], 2),
        ([[(HERE, 5)], [], [(HERE, 5)]], 0),
        ([[(HERE, 5)], [], [(HERE, 6)]], 1),
        ([[(HERE, 5)], [(THERE, 6)], [(HERE, 5)]], 0),
        ([[(HERE, 5)], [(HERE, 6), (NEAR, 5)], [(HERE, 5)]], 0),
        ([[], [], []], 0),
    ],
    ids=["kept", "once", "and back", "gap", "gap and other", "elsewhere", "holds on to its own", "nothing"],
)
def test_an_id_switch_is_another_id_than_before(
    published: list[list[tuple[Box, int]]], expected: int
) -> None:
    assert _switches(*[(one, [(HERE, 1)]) for one in published]) == expected


def test_two_objects_that_swap_their_ids_are_two_switches() -> None:
    there = [(HERE, 1), (THERE, 2)]
    assert _switches(([(HERE, 5), (THERE, 6)], there), ([(HERE, 6), (THERE, 5)], there)) == 2


def test_boxes_without_a_confirmed_track_do_not_count() -> None:
    assert _switches(([(HERE, 5)], [(HERE, -1)]), ([(HERE, 6)], [(HERE, -1)])) == 0


def test_boxes_of_different_classes_are_different_objects() -> None:
    there, ids = [boxes(HERE)] * 2, [np.array([1])] * 2
    shown = [boxes(HERE), boxes(HERE, class_id=1)]
    assert id_switches(shown, [np.array([5]), np.array([6])], there, ids) == 0


def test_each_reference_detection_has_the_id_of_its_confirmed_track() -> None:
    table = reference([[HERE, THERE], [NEAR], [HERE], [HERE], [THERE, HERE]])
    ids = track_ids(table)
    assert [one.tolist() for one in ids] == [[0, -1], [0], [0], [0], [-1, 0]]


def _history(passed: list[bool], motions: list[Any], n: int = 6) -> tuple[list[int], list[list[int]]]:
    table = reference([[HERE]] * n)
    published = with_tracks(np.array(passed), table, motions, [False] * n)
    assert published.ids is not None
    return [len(one) for one in published.detections], [one.tolist() for one in published.ids]


def test_skipped_frames_show_the_tracks_with_their_ids() -> None:
    shown, ids = _history([True, False, False, True, False, False], [None, *[np.eye(3)] * 5])
    assert shown == [1] * 6
    assert ids == [ids[0]] * 6


def test_no_tracks_are_published_after_a_cut_until_the_next_inference() -> None:
    motions = [None, np.eye(3), None, np.eye(3), np.eye(3), np.eye(3)]
    shown, _ = _history([True, False, False, False, True, False], motions)
    assert shown == [1, 1, 0, 0, 1, 1]


def test_the_plain_tracker_assigns_ids() -> None:
    published = with_tracks(np.array([True, False, True]), reference([[HERE]] * 3))
    assert published.ids is not None
    assert [one.tolist() for one in published.ids] == [[1], [1], [1]]


def _texture(seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (60, 100, 3), np.uint8)
    return np.asarray(cv2.resize(small, (1000, 600), interpolation=cv2.INTER_CUBIC))


def test_camera_motion_is_estimated_in_source_pixels() -> None:
    large, estimator = _texture(), CameraMotionEstimator()
    for at in range(4):
        view = np.ascontiguousarray(large[100:460, 100 + 8 * at : 740 + 8 * at])
        estimator.process(Frame(view, at, ""))
    first, *rest = estimator.motions
    assert first is None
    expected = np.array([[1, 0, -8], [0, 1, 0], [0, 0, 1.0]])
    for motion in rest:
        assert motion == pytest.approx(expected, abs=0.3)
    assert estimator.cpu_s > 0


def test_a_standing_camera_is_detected_and_a_cut_has_no_motion() -> None:
    estimator = CameraMotionEstimator()
    view = np.ascontiguousarray(_texture()[:360, :640])
    for image in (view, view, np.zeros_like(view), np.zeros_like(view)):
        estimator.process(Frame(image, 0, ""))
    assert estimator.motions[1] == pytest.approx(np.eye(3))
    assert estimator.motions[2] is None, "a cut"
    assert estimator.motions[3] == pytest.approx(np.eye(3))


class _Rejects:
    """Rejects every frame, and records its stamps."""

    passes_through = False

    def __init__(self) -> None:
        self.stamps_ns: list[int] = []

    def decide(self, frame: Frame, regions: np.ndarray, mono_ns: int) -> CascadeDecision:
        self.stamps_ns.append(mono_ns)
        return CascadeDecision(False, "unwanted", NO_REGIONS)


def _process(chain: Chain, n: int) -> None:
    for at in range(1, n + 1):
        image = np.zeros((90, 160, 3), np.uint8)
        image[20:60, 4 * at : 4 * at + 20] = 255
        chain.process(Frame(image, at * PERIOD_NS, "camera"), boxes(HERE), boxes())


def test_a_cascade_decides_on_the_frames_that_the_gate_passed() -> None:
    cascade = _Rejects()
    chain = Chain(GateConfig(max_delay_ms=1.0), cascade)
    _process(chain, 8)
    record = chain.record
    assert record.passed == [True] * 8
    assert record.accepted == [False] * 8
    assert cascade.stamps_ns == [at * PERIOD_NS for at in range(1, 9)]
    assert chain.cascade_reasons == {"unwanted": 8}
    assert len(chain.cascade_ms) == 8 and chain.cascade_cpu_s > 0 and sum(record.cpu_s) > 0


def test_an_audit_bypasses_the_cascade() -> None:
    chain = Chain(GateConfig(audit_rate=1.0, audit_max_hz=1000.0), _Rejects())
    image = np.zeros((90, 160, 3), np.uint8)
    for at in range(1, 30):
        chain.process(Frame(image, at * PERIOD_NS, "camera"), boxes(), boxes())
    audits = chain.record.reasons["audit"]
    assert audits > 0
    assert sum(chain.record.accepted) == audits


def test_an_empty_cascade_costs_nothing() -> None:
    chain = Chain(GateConfig(), Cascade())
    _process(chain, 4)
    assert chain.record.accepted == chain.record.passed
    assert chain.cascade_cpu_s == 0.0 and not chain.cascade_ms


def _member(cost: float, recall: float | None, f1: float | None, delay: float = 0.0) -> dict[str, Any]:
    return {"cpu_s_per_1000": cost, "recall_100ms": recall, "frame_f1": f1, "delay_ms_p95": delay}


SWEEP = {
    BASELINES[0]: [_member(22, 1.0, 1.0), _member(12, 0.9, 0.92, 100.0), _member(7, 0.5, 0.8, 300.0)],
    BASELINES[1]: [_member(20, 1.0, 1.0), _member(10, 0.8, 0.95, 200.0), _member(5, 0.6, 0.7, 400.0)],
}


def test_a_baseline_is_interpolated_between_its_intervals() -> None:
    assert at_cost(SWEEP[BASELINES[1]], "recall_100ms", 15) == pytest.approx(0.9)
    assert at_cost(SWEEP[BASELINES[1]], "recall_100ms", 1) == 0.6
    assert at_cost(SWEEP[BASELINES[1]], "recall_100ms", 99) == 1.0
    assert at_cost([_member(3, None, None)], "recall_100ms", 3) is None
    assert best_at_cost(SWEEP, "recall_100ms", 10) == 0.8  # the other has 0.74
    assert best_at_cost(SWEEP, "delay_ms_p95", 12) == 100.0


@pytest.mark.parametrize(
    ("recall", "baseline", "cost"),
    [(0.95, BASELINES[1], 20), (0.85, BASELINES[0], 12), (0.75, BASELINES[1], 10), (None, BASELINES[1], 10)],
)
def test_the_baseline_at_equal_recall_is_the_cheapest_sufficient_one(
    recall: float | None, baseline: str, cost: float
) -> None:
    found = baseline_at_recall("pan_tilt", SWEEP, _member(1, recall, 1.0))
    assert (found["baseline"], found["cpu_s_per_1000"]) == (baseline, cost)


def test_the_targets_of_a_chain_match_values_computed_by_hand() -> None:
    chains = {"full": _member(8, 1.0, 0.91, 33.0), "every_frame": _member(20, 1.0, 1.0)}
    results = checks("pan_tilt", chains, SWEEP)
    assert {name: one["met"] for name, one in results.items()} == {
        "recall_100ms": True,
        "frame_f1": True,
        "times_cheaper": True,
        "recall_at_equal_cost": True,
        "delay_at_equal_cost": True,
        "f1_at_equal_cost": True,
    }
    assert results["times_cheaper"]["value"] == pytest.approx(2.5)
    # 8 is three fifths of the way from 5 to 10.
    assert results["f1_at_equal_cost"]["limit"] == pytest.approx(0.7 + 0.25 * 3 / 5)
    quiet = checks("long_quiet", chains, SWEEP)
    assert quiet["frame_f1"]["met"] is False and quiet["times_cheaper"]["met"] is False
    assert checks("mine", chains, SWEEP)["times_cheaper"]["met"] is None
    assert group_of("mine") == "other"
