"""Curves of baselines, their values at our share of inferred frames, and the verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge_vision.evaluate.baselines import (
    AVERAGE_VARIANTS,
    INTERVALS,
    MOG2_AREAS,
    Mog2,
    RunningAverage,
    bounded,
    every,
)
from edge_vision.evaluate.gate.verdict import (
    FAMILIES,
    at_share,
    best_baseline,
    family_curve,
    headline,
    verdict,
)
from edge_vision.evaluate.metrics.builtin import METRICS
from edge_vision.evaluate.tables import MethodRow, heading, line, markdown
from edge_vision.gate.frame_gate import GateConfig

MS = 1_000_000
CONFIG = GateConfig(max_blind_ms=500.0)


def method(share: float, delay_ms: float | None, f1: float | None, **more: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys(metric.name for metric in METRICS),
        "inferred_share": share,
        "delay_ms_p95": delay_ms,
        "frame_f1": f1,
        "recall_100ms": 1.0,
        "recall_low95": 0.9,
        "worst_gap_ms": 500.0,
        "gate_ms_p50": 0.4,
        **more,
    }


METHODS = {
    "gate": method(0.2, 30.0, 0.95),
    "every_frame": method(1.0, 0.0, 1.0),
    "fixed_2": method(0.5, 33.0, 0.6),
    "fixed_10": method(0.1, 300.0, 0.2),
    "fixed_tracker_2": method(0.5, 33.0, 0.98),
    "fixed_tracker_10": method(0.1, 300.0, 0.9),
    "fixed_tracker_cmc_2": method(0.5, 33.0, 0.99),
    "fixed_tracker_cmc_10": method(0.1, 260.0, 0.92),
    "mog2": method(0.3, 10.0, 0.99),
    "running_average_a": method(0.05, None, 0.3),
}


def test_a_curve_contains_only_the_members_of_its_family() -> None:
    assert family_curve(METHODS, "fixed", "frame_f1") == [(0.1, 0.2), (0.5, 0.6), (1.0, 1.0)]
    assert family_curve(METHODS, "fixed_tracker", "frame_f1") == [(0.1, 0.9), (0.5, 0.98), (1.0, 1.0)]
    assert family_curve(METHODS, "running_average_a", "delay_ms_p95") == []


@pytest.mark.parametrize(
    ("share", "value"), [(0.1, 300.0), (0.3, 166.5), (0.75, 16.5), (1.0, 0.0), (0.05, None)]
)
def test_a_family_is_interpolated_between_its_members(share: float, value: float | None) -> None:
    curve = family_curve(METHODS, "fixed_tracker", "delay_ms_p95")
    assert at_share(curve, share) == (None if value is None else pytest.approx(value))


def test_above_its_highest_share_a_family_keeps_the_value_of_that_member() -> None:
    assert at_share([(0.3, 10.0)], 0.6) == 10.0
    assert at_share([], 0.6) is None


def test_the_best_baseline_infers_no_more_frames_than_the_gate() -> None:
    # MOG2 has 10 ms, but infers 30 % of the frames; at 20 % the best is the third family.
    name, value = best_baseline(METHODS, "delay_ms_p95", 0.2) or ("", 0.0)
    assert (name, value) == ("fixed_tracker_cmc", pytest.approx(260 - 0.25 * 227))
    assert best_baseline(METHODS, "delay_ms_p95", 0.3) == ("mog2", 10.0)
    name, value = best_baseline(METHODS, "frame_f1", 0.2) or ("", 0.0)
    assert (name, value) == ("fixed_tracker_cmc", pytest.approx(0.92 + 0.25 * 0.07))


def test_below_all_fixed_intervals_the_longest_one_counts() -> None:
    assert best_baseline(METHODS, "delay_ms_p95", 0.02) == ("fixed_tracker_cmc", 260.0)


def test_each_baseline_belongs_to_one_family() -> None:
    names = ["every_frame", "mog2", *AVERAGE_VARIANTS, *(f"mog2_area_x{times}" for times in MOG2_AREAS[1:])]
    for n in INTERVALS:
        names += [f"fixed_{n}", f"fixed_tracker_{n}", f"fixed_tracker_cmc_{n}"]
    for name in names:
        one = {name: method(0.5, 1.0, 1.0)}
        families = [family for family in FAMILIES if family_curve(one, family, "frame_f1")]
        assert len(families) == (3 if name == "every_frame" else 1), name
    assert not any(family_curve({"gate": METHODS["gate"]}, family, "frame_f1") for family in FAMILIES)


def test_the_verdict_checks_each_target() -> None:
    result = verdict("static", METHODS, "gate", CONFIG, period_ms=33.0)
    # The limit of the delay is a third of 203 ms.
    assert {name: check["met"] for name, check in result.items()} == dict.fromkeys(result, True)
    assert result["delay_ms_p95"]["limit"] == pytest.approx((260 - 0.25 * 227) / 3)
    mine = method(0.3, 40.0, 0.9, recall_100ms=0.98, worst_gap_ms=540.0)
    worse = {**METHODS, "gate": mine}
    result = verdict("static", worse, "gate", CONFIG, period_ms=33.0)
    assert {name: check["met"] for name, check in result.items()} == dict.fromkeys(result, False)


def test_targets_are_unknown_without_a_limit_or_events() -> None:
    nothing = {**METHODS, "gate": method(0.2, None, None, recall_100ms=None)}
    result = verdict("my_clip", nothing, "gate", CONFIG, 33.0)
    assert [name for name, check in result.items() if check["met"] is None] == [
        "recall_100ms",
        "delay_ms_p95",
        "frame_f1",
        "inferred_share",
    ]


def test_the_line_and_the_headline_name_each_missed_target() -> None:
    checks = {
        "gate": verdict("static", METHODS, "gate", GateConfig(max_blind_ms=400.0, max_delay_ms=200.0), 33.0)
    }
    condition = {
        "constructed": True,
        "events": 12,
        "noise_ceiling": 0.95,
        "methods": METHODS,
        "verdict": checks,
    }
    row = MethodRow("static", "gate", condition, METHODS["gate"], checks["gate"])
    text = line(row, METRICS)
    assert text.split()[:6] == ["static", "12", "0.950", "100.0", "%", "90.0"]
    assert text.endswith("gate: misses worst_gap_ms")
    assert len(heading(METRICS).split("verdict")[0]) == len(text.split("gate: misses")[0])
    head, _, cells = markdown([row], METRICS).splitlines()
    assert head.count("|") == cells.count("|") and cells.startswith("| static | gate | 12 | 0.950 | ")
    assert "| 30 ms (203 ms fixed_tracker_cmc) |" in cells and "| **500 ms** |" in cells
    assert cells.endswith("| worst_gap_ms |")
    summary = headline({"static": condition, "pan_tilt": condition})
    assert summary.startswith("24 events in 2 conditions (2 constructed)")
    assert ">= 99 % in 2/2" in summary
    assert "max_blind_ms in 0/2" in summary


def test_fixed_intervals_and_bounded_blind_time() -> None:
    assert every(3, 7).tolist() == [True, False, False, True, False, False, True]
    moved = np.zeros(10, bool)
    moved[4] = True
    passed = bounded(moved, np.arange(10) * 100 * MS, max_blind_ms=300.0)
    assert np.flatnonzero(passed).tolist() == [0, 3, 4, 7]


def _images(n: int = 60) -> list[np.ndarray]:
    """A grey scene with noise; from frame 40 on, a dark object covers 1 % of it."""
    rng = np.random.default_rng(2)
    images = []
    for at in range(n):
        image = np.clip(rng.normal(120, 2, (360, 640, 3)), 0, 255).astype(np.uint8)
        if at >= 40:
            image[100:140, 200:258] = 20
        images.append(image)
    return images


def test_mog2_and_the_running_averages_detect_a_new_object() -> None:
    from edge_vision.core.frame import Frame

    mog2 = Mog2()
    averages = {name: RunningAverage(variant) for name, variant in AVERAGE_VARIANTS.items()}
    for at, image in enumerate(_images()):
        for baseline in (mog2, *averages.values()):
            baseline.process(Frame(image, at + 1, ""))
    assert max(mog2.record.scores[20:40]) < 0.001
    assert mog2.record.scores[40] == pytest.approx(0.01, abs=0.004)
    for name in ("running_average_a", "running_average_b", "running_average_c"):
        assert averages[name].record.scores[32:40] == [0.0] * 8, name
        assert averages[name].record.scores[40] == 1.0, name
    assert len(mog2.record.ms) == 60


def test_the_variants_differ_in_their_reaction_to_a_light_switch() -> None:
    from edge_vision.core.frame import Frame

    passed = {}
    for name, variant in AVERAGE_VARIANTS.items():
        baseline = RunningAverage(variant)
        for at in range(80):
            baseline.process(Frame(np.full((360, 640, 3), 60 if at < 50 else 160, np.uint8), at + 1, ""))
        passed[name] = np.flatnonzero(baseline.record.scores).tolist()
    # Only the variant that is open while calibrating passes the frame of the change.
    assert passed == {"running_average_a": [50], "running_average_b": [], "running_average_c": []}
