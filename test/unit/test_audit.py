"""The audit: an unbiased sample within its budget, an estimate that can be trusted, and a gate that opens."""

from __future__ import annotations

import numpy as np
import pytest
from box_cases import boxes
from hypothesis import given
from hypothesis import strategies as st

from edge_vision.core.confidence_intervals import clopper_pearson_interval
from edge_vision.core.detections import Detections
from edge_vision.gate.audit import MissAudit

S = 1_000_000_000
NOTHING = np.zeros((0, 4), np.float32)


SOMETHING = boxes((10, 10, 50, 50))


def holds(hits: int, n: int, share: float) -> bool:
    """Whether `hits` of `n` may come of this share: false once in a million, and the seeds are fixed."""
    low, high = clopper_pearson_interval(hits, n, 1 - 1e-6)
    return low <= share <= high


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 1.0])
def test_without_pressure_the_sample_has_its_rate(rate):
    audit = MissAudit(rate=rate, max_hz=1000.0, seed=1)
    drawn = sum(audit.sample(i * S // 30) for i in range(20_000))
    assert holds(drawn, 20_000, rate)
    assert audit.status()["audit.sampled"] == drawn


@pytest.mark.parametrize("camera_hz", [5, 30, 120])
@pytest.mark.parametrize("max_hz", [0.2, 1.0, 4.0])
def test_the_budget_is_kept_on_average_and_used(camera_hz, max_hz):
    audit = MissAudit(rate=1.0, max_hz=max_hz, seed=2)
    seconds = 2000
    drawn = sum(audit.sample(i * S // camera_hz) for i in range(seconds * camera_hz))
    expected = min(max_hz, camera_hz) * seconds
    assert drawn == pytest.approx(expected, abs=5 * expected**0.5 + 0.01 * expected)


def test_every_skipped_frame_has_the_same_chance():
    """Quiet and busy stretches: the first and last frames of a quiet one are looked at as often as all."""
    audit = MissAudit(rate=1.0, max_hz=2.0, seed=3)
    rng = np.random.default_rng(3)
    drawn, of = dict.fromkeys(("all", "busy", "first", "last"), 0), {}
    of = dict(drawn)
    i = 0
    for _ in range(4000):
        is_busy = rng.random() < 0.5
        length = int(rng.integers(30, 120))
        for k in range(length):
            i += 1
            if is_busy and rng.random() < 0.8:
                continue  # Passes by itself: nobody is about to skip it.
            kinds = ["all"]
            kinds += ["busy"] if is_busy else []
            kinds += ["first"] if not is_busy and k < 5 else []
            kinds += ["last"] if not is_busy and k >= length - 5 else []
            one = audit.sample(i * S // 30)
            for kind in kinds:
                drawn[kind] += one
                of[kind] += 1
    share = drawn["all"] / of["all"]
    # max_hz of a camera of 30 Hz; the busy frames that were not skipped leave budget unused.
    assert share == pytest.approx(2.0 / 30, rel=0.05)
    for kind in ("busy", "first", "last"):
        assert holds(drawn[kind], of[kind], share), kind


def test_draws_are_independent_of_each_other():
    audit = MissAudit(rate=0.2, max_hz=1000.0, seed=4)
    drawn = np.array([audit.sample(i * S // 30) for i in range(50_000)])
    after_one, before = drawn[1:][drawn[:-1]], drawn[:-1].sum()
    assert holds(int(after_one.sum()), int(before), 0.2)


def test_bursts_and_gaps_starve_nobody():
    audit = MissAudit(rate=1.0, max_hz=1.0, seed=5)
    # Three frames within a millisecond, then nothing for 0.1 s: 30 a second all the same.
    stamps = [i // 3 * S // 10 + i % 3 * 300_000 for i in range(30_000)]
    drawn = sum(audit.sample(at) for at in stamps)
    assert drawn == pytest.approx(1000, abs=160)
    # After an hour without a frame the first second has no more than its budget, about.
    again = sum(audit.sample(stamps[-1] + 3600 * S + i * S // 30) for i in range(30))
    assert again <= 6


def test_a_faster_camera_is_within_budget_at_once():
    audit = MissAudit(rate=1.0, max_hz=1.0, seed=6)
    drawn = 0
    for k in range(200):  # 10 frames a second, then two seconds of 100, far apart.
        start = k * 1000 * S
        for i in range(100):
            audit.sample(start + i * S // 10)
        drawn += sum(audit.sample(start + 10 * S + i * S // 100) for i in range(200))
    # The sum of 1/max(10, i) over the first second: the price of not knowing what comes.
    assert drawn / 200 < 1 + (1 + np.log(10)) + 0.5


def test_zero_means_none():
    for settings in ({"rate": 0.0}, {"max_hz": 0.0}):
        audit = MissAudit(seed=7, **settings)
        assert not any(audit.sample(i * S // 30) for i in range(5000))


def test_a_seed_repeats_itself():
    one, two, other = (MissAudit(rate=0.3, max_hz=1e3, seed=seed) for seed in (8, 8, 9))
    draws = [[audit.sample(i * S // 30) for i in range(200)] for audit in (one, two, other)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("known", "found", "missed"),
    [
        ([], [], False),
        ([(0, 0, 40, 40)], [], False),
        ([], [(0, 0, 40, 40)], True),
        ([(0, 0, 40, 40)], [(0, 0, 40, 40)], False),
        ([(0, 0, 40, 40)], [(20, 0, 60, 40)], False),  # IoU 1/3
        ([(0, 0, 40, 40)], [(22, 0, 62, 40)], True),  # IoU 0.29
        ([(0, 0, 40, 40)], [(0, 0, 40, 40), (100, 100, 140, 140)], True),
        ([(0, 0, 40, 40), (100, 100, 140, 140)], [(0, 0, 40, 40)], False),
        ([(5, 5, 5, 5)], [(5, 5, 5, 5)], True),  # Without area nothing overlaps.
    ],
)
def test_what_a_miss_is(known, found, missed):
    audit = MissAudit()
    assert audit.judge(boxes(*known).xyxy_px, boxes(*found), 0) is missed
    assert audit.status()["audit.missed"] == int(missed)


def test_nothing_audited_is_unavailable_and_not_zero():
    status = MissAudit().status()
    assert status["audit.audited"] == 0
    assert status["audit.miss_rate"] is None
    assert status["audit.miss_rate_low"] is None
    assert status["audit.miss_rate_high"] is None
    assert status["audit.opens"] is False


@given(st.lists(st.booleans(), min_size=1, max_size=80), st.integers(1, 40))
def test_the_estimate_is_of_the_last_audits(misses, window):
    audit = MissAudit(window=window, min_audits=1000)
    for missed in misses:
        audit.judge(NOTHING, SOMETHING if missed else Detections.empty(), 0)
    last = misses[-window:]
    status = audit.status()
    assert (status["audit.audited"], status["audit.missed"]) == (len(last), sum(last))
    assert status["audit.miss_rate"] == pytest.approx(sum(last) / len(last))
    assert 0 <= status["audit.miss_rate_low"] <= status["audit.miss_rate"]
    assert status["audit.miss_rate"] <= status["audit.miss_rate_high"] <= 1


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.5])
def test_the_interval_holds_the_truth_as_often_as_promised(share):
    """The whole way, drawn and judged: gates with this miss rate, each told after about 300 audits."""
    runs, held = 300, 0
    rng = np.random.default_rng(10)
    for seed in range(runs):
        audit = MissAudit(rate=0.2, max_hz=1e6, seed=seed, min_audits=10**6)
        for i, missed in enumerate(rng.random(1500) < share):
            if audit.sample(i * S // 30):
                audit.judge(NOTHING, SOMETHING if missed else Detections.empty(), i * S // 30)
        status = audit.status()
        held += status["audit.miss_rate_low"] <= share <= status["audit.miss_rate_high"]
    # Wilson's own coverage at 300 tries is 0.93 to 0.97 for these shares.
    assert 0.90 < held / runs <= 1.0


def judged(audit: MissAudit, misses: int, hits: int, at_ns: int = 0) -> None:
    for i in range(misses + hits):
        audit.judge(NOTHING, SOMETHING if i < misses else Detections.empty(), at_ns)


def test_a_bad_gate_opens_stays_open_and_is_tried_again():
    audit = MissAudit(max_miss_rate=0.2, hold_s=300.0, seed=0)
    judged(audit, 12, 7)
    assert not audit.opens, "19 audits are too few to open"
    judged(audit, 1, 0, 5 * S)
    assert audit.opens
    assert audit.status()["audit.opens"] is True
    # What it was opened for is shown while it is open, and better figures do not close it.
    judged(audit, 0, 200, 10 * S)
    assert audit.is_open(304 * S)
    assert audit.status()["audit.missed"] == 13
    assert not audit.is_open(305 * S)
    assert not audit.opens
    assert audit.status()["audit.miss_rate"] is None, "the estimate starts anew"
    judged(audit, 10, 9, 306 * S)
    assert not audit.is_open(306 * S)
    judged(audit, 3, 0, 306 * S)
    assert audit.is_open(306 * S)


@pytest.mark.parametrize(("misses", "hits", "opens"), [(0, 400, False), (60, 340, False), (120, 280, True)])
def test_the_lower_end_decides_not_the_rate(misses, hits, opens):
    audit = MissAudit(max_miss_rate=0.2)
    judged(audit, 0, hits)
    judged(audit, misses, 0)
    assert audit.opens is opens


def test_a_gate_at_half_its_limit_hardly_ever_opens():
    rng = np.random.default_rng(11)
    opened = 0
    for _ in range(200):
        audit = MissAudit(max_miss_rate=0.2)
        for missed in rng.random(600) < 0.1:
            judged(audit, int(missed), int(not missed))
        opened += audit.opens
    assert opened <= 5


def test_settings_change_while_it_runs():
    audit = MissAudit(rate=0.0, max_hz=1e3, max_miss_rate=0.9, seed=12)
    assert not any(audit.sample(i * S // 30) for i in range(1000))
    audit.rate = 1.0
    assert all(audit.sample(i * S // 30) for i in range(1000, 1100))
    judged(audit, 20, 20)
    assert not audit.opens
    audit.max_miss_rate = 0.1
    judged(audit, 1, 0)
    assert audit.opens
