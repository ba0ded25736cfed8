"""Probation: each bound with its reason, and no false alarm for an equal model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_vision.updates.history import MAX_LINES, HistoryEntry, UpdateHistory
from edge_vision.updates.probation import (
    JUDGED_FRAMES,
    LOAD_LIMIT_S,
    MIN_FRAMES,
    NO_RATES,
    PROBATION_S,
    SILENCE_S,
    Baseline,
    Probation,
    Rates,
    ServingFigures,
    Verdict,
)

OLD, NEW, DIGEST = "1" * 64, "2" * 64, "d" * 64
BEFORE = Rates(frames=500, failed_share=0.0, objects_per_frame=3.0, age_ms=60.0)
START = ServingFigures(NEW, "7", inferred=1000, failed=2, detections=3000, age_ms=60.0, trouble="")


def after(frames: int, objects: float = 3.0, failed: int = 0, age_ms: float = 60.0) -> ServingFigures:
    """The figures this many frames after START."""
    return replace(
        START,
        inferred=START.inferred + frames - failed,
        failed=START.failed + failed,
        detections=START.detections + round(objects * (frames - failed)),
        age_ms=age_ms,
    )


def verdict(
    reports: Iterator[ServingFigures] | list[ServingFigures], before: Rates = BEFORE
) -> Verdict | None:
    """One report per second, after START."""
    probation = Probation(NEW, OLD, DIGEST, before, 0.0)
    probation.add(START, 1.0)
    for second, report in enumerate(reports, start=2):
        probation.add(report, float(second))
        if found := probation.verdict(float(second)):
            return found
    return None


def test_an_equal_model_is_committed_after_its_time_and_frames() -> None:
    found = verdict(after(10 * second) for second in range(1, 100))
    assert found and found.commit and found.reason == "within all bounds"
    assert found.evidence["duration_s"] == PROBATION_S
    assert found.evidence["before"]["objects_per_frame"] == 3.0
    assert found.evidence["now"]["frames"] >= MIN_FRAMES
    assert verdict(after(min(10 * second, 90)) for second in range(1, 100)) is None, "too few frames"


@pytest.mark.parametrize(
    ("reports", "reason"),
    [
        ([after(10 * s, failed=s) for s in range(1, 60)], "frames failed, limit 1.0 %"),
        ([after(10 * s, objects=0.0) for s in range(1, 60)], "blind: 0.00 detections per frame, 3.00 before"),
        ([after(10 * s, objects=100.0) for s in range(1, 60)], "flooding: 100.00 detections per frame"),
    ],
)
def test_a_bound_that_is_exceeded_ends_probation_with_its_reason(reports, reason: str) -> None:
    found = verdict(reports)
    assert found and not found.commit and reason in found.reason
    assert found.evidence["duration_s"] < PROBATION_S


def test_a_few_slow_reports_or_failures_are_no_reason() -> None:
    reports = [after(10 * s, failed=int(s > 20), age_ms=300.0 if s % 5 == 0 else 60.0) for s in range(1, 100)]
    found = verdict(reports)
    assert found and found.commit


def of_old(frames: int, age_ms: float) -> ServingFigures:
    """The figures of the model before, this many frames after it serves again."""
    return replace(after(300 + frames), sha256=OLD, age_ms=age_ms)


def slow_probation(control: str = OLD) -> Probation:
    """After reports of 200 ms, limit 160 ms."""
    probation = Probation(NEW, control, DIGEST, BEFORE, 0.0)
    for second in range(30):
        probation.add(after(10 * second, age_ms=200.0), float(second))
        assert (probation.needs_control or probation.verdict(second)) or second < JUDGED_FRAMES // 10 + 5
    return probation


def test_a_model_that_is_slower_than_the_one_before_under_the_same_load_is_rolled_back() -> None:
    probation = slow_probation()
    assert probation.needs_control and probation.verdict(30.0) is None
    for second in range(6):
        probation.add(of_old(10 * second, 70.0), 30.0 + second)
    found = probation.verdict(36.0)
    assert found and not found.commit
    assert found.reason == "age 200 ms (p95), limit 170 ms; the model before has 70 ms now"
    assert found.evidence["now"]["frames"] >= JUDGED_FRAMES


def test_under_load_that_slows_the_model_before_as_well_probation_begins_again_and_commits() -> None:
    probation = slow_probation()
    for second in range(6):
        probation.add(of_old(10 * second, 190.0), 30.0 + second)
    assert not probation.needs_control and probation.verdict(36.0) is None
    for second in range(40, 100):
        probation.add(after(10 * second, age_ms=200.0), float(second))
        assert probation.verdict(float(second)) is None
    probation.add(after(1000, age_ms=200.0), 100.0)
    found = probation.verdict(100.0)
    assert found and found.commit and found.evidence["before"]["age_ms"] == 190.0


def test_without_a_control_age_alone_decides() -> None:
    found = slow_probation(control=NEW).verdict(30.0)
    assert found and found.reason == "age 200 ms (p95), limit 160 ms"
    probation = slow_probation()
    for second in range(30, 640, 10):  # The model before does not load.
        probation.add(after(10 * second, age_ms=200.0), float(second))
    found = probation.verdict(640.0)
    assert found and found.reason == "age 200 ms (p95), limit 160 ms"


def test_an_empty_scene_is_no_blindness() -> None:
    before = replace(BEFORE, objects_per_frame=0.1)
    found = verdict([after(10 * s, objects=0.0) for s in range(1, 100)], before)
    assert found and found.commit


def test_without_rates_of_before_absolute_bounds_remain() -> None:
    found = verdict([after(10 * s, failed=s) for s in range(1, 60)], NO_RATES)
    assert found and "frames failed" in found.reason
    found = verdict([after(10 * s, objects=0.0, age_ms=999.0) for s in range(1, 100)], NO_RATES)
    assert found and found.commit


def test_false_rollbacks_of_equal_models_are_rare() -> None:
    """100 A/A runs: Poisson counts with the same mean, one frame in 500 fails in both."""
    random, rollbacks = np.random.default_rng(1), 0
    for _ in range(100):
        objects = np.cumsum(random.poisson(1.0, 1000))
        failed = np.cumsum(random.random(1000) < 0.002)
        before = replace(BEFORE, objects_per_frame=1.0, failed_share=0.002)
        reports = [
            replace(
                START,
                inferred=1000 + n - int(failed[n]),
                failed=2 + int(failed[n]),
                detections=int(objects[n]) + 3000,
            )
            for n in range(10, 1000, 10)
        ]
        found = verdict(reports, before)
        assert found
        rollbacks += not found.commit
    assert rollbacks <= 5


def test_silence_of_a_running_detector_is_a_hang_and_of_a_stopped_one_is_not() -> None:
    probation = Probation(NEW, OLD, DIGEST, BEFORE, 0.0)
    probation.add(START, 1.0)
    assert probation.verdict(SILENCE_S) is None
    probation.pause(SILENCE_S)
    assert probation.verdict(2 * SILENCE_S - 1) is None
    found = probation.verdict(2 * SILENCE_S + 1)
    assert found and "has not reported" in found.reason


def test_a_model_that_is_refused_or_never_loaded() -> None:
    refused = replace(START, sha256=OLD, trouble=f"/slots/bundles/{DIGEST} on auto refused: no such operator")
    found = verdict([refused])
    assert found and "the detector refused it: " in found.reason
    other = replace(START, sha256=OLD, trouble="/another/model refused")
    assert verdict([other]) is None
    probation = Probation(NEW, OLD, DIGEST, BEFORE, 0.0)
    for second in range(0, int(LOAD_LIMIT_S) + 20, 10):
        probation.add(replace(START, sha256=OLD), float(second))
        found = probation.verdict(float(second))
    assert found and "did not load it within 600 s" in found.reason


def test_the_audit_ends_probation_only_if_it_opens_then() -> None:
    for opened_before, reason in ((True, None), (False, "the audit's miss rate exceeds its limit: 0.300")):
        probation = Probation(NEW, OLD, DIGEST, BEFORE, 0.0)
        probation.add_gate({"audit.open": str(opened_before)})
        probation.add(START, 1.0)
        probation.add_gate({"audit.open": "True", "audit.miss_rate": "0.300"})
        found = probation.verdict(2.0)
        assert (found and found.reason) == reason


def test_reset_counts_begin_a_new_measurement() -> None:
    reports = [after(10 * s) for s in range(1, 30)]
    reports += [replace(START, inferred=10 * s, failed=0, detections=30 * s) for s in range(1, 100)]
    found = verdict(reports)
    assert found and found.commit


def test_the_baseline_is_the_last_two_minutes() -> None:
    baseline = Baseline()
    assert baseline.rates() == NO_RATES
    for second in range(300):
        objects = 1.0 if second < 150 else 4.0
        detections = 10 * min(second, 150) + round(10 * objects * max(second - 150, 0))
        baseline.add(replace(START, inferred=10 * second, failed=0, detections=detections), float(second))
    rates = baseline.rates()
    assert (rates.frames, rates.objects_per_frame) == (1200, 4.0)
    baseline.add(replace(START, inferred=0, failed=0, detections=0), 300.0)
    assert baseline.rates().frames == 0


def test_figures_of_a_status() -> None:
    values = {
        "model_sha256": NEW,
        "pid": "7",
        "ledger.inferred": "12",
        "detections_total": "30",
        "age_ms.p95": "unavailable",
        "swap.loading": "False",
        "swap.error": "refused",
    }
    assert ServingFigures.read(values) == ServingFigures(NEW, "7", 12, 0, 30, None, "refused")
    assert ServingFigures.read({**values, "swap.loading": "True"}).trouble == ""
    assert ServingFigures.read({}) == ServingFigures("", "", 0, 0, 0, None, "")


def test_the_history_survives_and_is_bounded(tmp_path: Path) -> None:
    history = UpdateHistory(tmp_path)
    history.set_before(BEFORE)
    for number in range(MAX_LINES + 5):
        history.add("committed", f"model {number}", {"n": number}, 7)
    again = UpdateHistory(tmp_path)
    assert (again.last.text, again.last.release) == (f"model {MAX_LINES + 4}", 7)
    assert again.before() == BEFORE
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert len(lines) == MAX_LINES and json.loads(lines[0])["evidence"] == {"n": 5}
    (tmp_path / "history.jsonl").write_bytes(b"\xff")
    (tmp_path / "before.json").write_text("[]")
    damaged = UpdateHistory(tmp_path)
    assert (damaged.last, damaged.before()) == (HistoryEntry(), NO_RATES)
