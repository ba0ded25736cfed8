"""The audit: an even sample within its budget, misses without flicker, and a gate that opens and closes."""

from __future__ import annotations

import numpy as np
import pytest
from box_cases import boxes
from hypothesis import given
from hypothesis import strategies as st

from edge_vision.core.confidence_intervals import anytime_interval
from edge_vision.core.detections import Detections
from edge_vision.gate.audit import EPOCH_FRAMES, MissAudit

S, MS = 1_000_000_000, 1_000_000
NOTHING = np.zeros((0, 4), np.float32)
EMPTY = Detections.empty()
HERE, THERE = (10, 10, 50, 50), (100, 100, 140, 140)


def scored(*scores: float, box=HERE, class_id: int = 0) -> Detections:
    n = len(scores)
    return Detections(
        np.array([box] * n, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.full(n, class_id, np.int32),
    )


def observed(audit: MissAudit, *outcomes: bool, at_ns: int = 0, step_ns: int = 2 * S) -> int:
    """Audited frames with these outcomes, True = a miss that the next result confirms. Returns the time."""
    for missed in outcomes:
        found = boxes(HERE) if missed else EMPTY
        audit.observe(found, at_ns, NOTHING)
        audit.observe(found, at_ns + 33 * MS)
        at_ns += step_ns
    return at_ns


def counts(audit: MissAudit) -> tuple[object, ...]:
    return tuple(audit.status()[f"audit.{key}"] for key in ("audited", "missed", "flicker", "pending"))


# The sample.
@pytest.mark.parametrize(("rate", "block"), [(0.01, 100), (0.1, 10), (0.5, 2), (1.0, 1)])
@pytest.mark.parametrize("seed", range(5))
def test_each_block_of_skipped_frames_has_one_sample(rate, block, seed):
    audit = MissAudit(rate=rate, max_hz=1000.0, seed=seed)
    drawn = np.array([audit.sample(i * S // 30) for i in range(4000)])
    assert (drawn.reshape(-1, block).sum(axis=1) == 1).all()
    assert audit.status()["audit.sampled"] == 4000 // block


def test_a_rate_that_is_no_whole_block_is_met_on_average():
    for rate in (0.03, 0.3, 0.7):
        audit = MissAudit(rate=rate, max_hz=1000.0, seed=1)
        assert sum(audit.sample(i * S // 30) for i in range(10_000)) == pytest.approx(10_000 * rate, abs=2)


def test_the_position_within_a_block_is_uniform():
    audit = MissAudit(rate=0.1, max_hz=1000.0, seed=2)
    drawn = np.array([audit.sample(i * S // 30) for i in range(100_000)]).reshape(-1, 10)
    # Five standard deviations of a binomial count; the seed is fixed.
    assert drawn.sum(axis=0) == pytest.approx(np.full(10, 1000), abs=5 * 30)


@pytest.mark.parametrize("camera_hz", [5, 30, 120])
@pytest.mark.parametrize("max_hz", [0.2, 1.0, 4.0])
def test_the_budget_is_met_on_average(camera_hz, max_hz):
    audit = MissAudit(rate=1.0, max_hz=max_hz, seed=2)
    seconds = 500
    drawn = sum(audit.sample(i * S // camera_hz) for i in range(seconds * camera_hz))
    assert drawn == pytest.approx(min(max_hz, camera_hz) * seconds, rel=0.02, abs=2)


def test_every_skipped_frame_has_the_same_chance():
    """Frames of busy stretches, and the first and last of quiet ones, are sampled as often as all others."""
    audit = MissAudit(rate=1.0, max_hz=2.0, seed=3)
    rng = np.random.default_rng(3)
    kinds = ("all", "busy", "first", "last")
    drawn, skipped = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0)
    i = 0
    for _ in range(2000):
        is_busy = rng.random() < 0.5
        length = int(rng.integers(30, 120))
        for k in range(length):
            i += 1
            if is_busy and rng.random() < 0.8:
                continue  # The gate passes it by itself.
            sampled = audit.sample(i * S // 30)
            of = {"all": True, "busy": is_busy, "first": not is_busy and k < 5}
            of["last"] = not is_busy and k >= length - 5
            for kind in kinds:
                drawn[kind] += sampled and of[kind]
                skipped[kind] += of[kind]
    share = drawn["all"] / skipped["all"]
    assert share == pytest.approx(2.0 / 30, rel=0.05), "the busy stretches leave budget unused"
    for kind in kinds:
        sd = (share * (1 - share) / skipped[kind]) ** 0.5
        assert drawn[kind] / skipped[kind] == pytest.approx(share, abs=5 * sd), kind


def test_bursts_and_gaps_keep_the_budget():
    audit = MissAudit(rate=1.0, max_hz=1.0, seed=5)
    # Three frames within a millisecond, then nothing for 0.1 s: 30 per second on average.
    stamps = [i // 3 * S // 10 + i % 3 * 300_000 for i in range(30_000)]
    assert sum(audit.sample(at) for at in stamps) == pytest.approx(1000, abs=30)
    # The first second after an hour without frames has no backlog.
    assert sum(audit.sample(stamps[-1] + 3600 * S + i * S // 30) for i in range(30)) <= 6


def test_zero_disables_the_sample_and_settings_apply_at_once():
    for settings in ({"rate": 0.0}, {"max_hz": 0.0}):
        audit = MissAudit(seed=7, **settings)
        assert not any(audit.sample(i * S // 30) for i in range(3000))
        audit.rate, audit.max_hz = 1.0, 1000.0
        assert all(audit.sample(i * S // 30) for i in range(3000, 3100))
    audit = MissAudit(rate=0.0001, max_hz=1000.0, seed=7)
    assert sum(audit.sample(i * S // 30) for i in range(100)) <= 1
    audit.rate = 1.0
    assert all(audit.sample(i * S // 30) for i in range(100, 200)), "the long block is abandoned"


def test_a_seed_repeats_the_sample():
    draws = [
        [audit.sample(i * S // 30) for i in range(200)]
        for audit in (MissAudit(rate=0.3, max_hz=1e3, seed=seed) for seed in (8, 8, 9))
    ]
    assert draws[0] == draws[1] != draws[2]


# Misses and flicker.
@pytest.mark.parametrize(
    ("known", "found", "missed"),
    [
        ([], [], False),
        ([(0, 0, 40, 40)], [], False),
        ([], [(0, 0, 40, 40)], True),
        ([(0, 0, 40, 40)], [(0, 0, 40, 40)], False),
        ([(0, 0, 40, 40)], [(20, 0, 60, 40)], False),  # IoU 1/3
        ([(0, 0, 40, 40)], [(22, 0, 62, 40)], True),  # IoU 0.29
        ([(0, 0, 40, 40)], [(0, 0, 40, 40), THERE], True),
        ([(0, 0, 40, 40), THERE], [(0, 0, 40, 40)], False),
    ],
)
def test_a_miss_is_a_confirmed_object_that_consumers_do_not_know(known, found, missed):
    audit = MissAudit()
    audit.observe(boxes(*found), 0, boxes(*known).xyxy_px)
    audit.observe(boxes(*found), 33 * MS)
    assert counts(audit) == (1, int(missed), 0, 0)


def test_a_detection_that_no_later_result_confirms_is_flicker():
    audit = MissAudit()
    audit.observe(scored(0.5), 0, NOTHING)
    for at in range(1, 4):
        assert counts(audit) == (0, 0, 0, 1), "pending"
        # Another class at the same position, and the same class elsewhere.
        audit.observe(Detections.joined([scored(0.5, class_id=1), scored(0.5, box=THERE)]), at * 33 * MS)
    assert counts(audit) == (1, 0, 1, 0)


def test_any_of_the_next_three_results_confirms():
    audit = MissAudit()
    audit.observe(scored(0.5), 0, NOTHING)
    audit.observe(EMPTY, 33 * MS)
    audit.observe(EMPTY, 67 * MS)
    audit.observe(scored(0.5, box=(14, 10, 54, 50)), 100 * MS)
    assert counts(audit) == (1, 1, 0, 0)


def test_the_first_result_after_half_a_second_is_the_last_to_confirm():
    for later, expected in ((scored(0.5), (1, 1, 0, 0)), (EMPTY, (1, 0, 1, 0))):
        audit = MissAudit()
        audit.observe(scored(0.5), 0, NOTHING)
        audit.observe(later, 2 * S)
        assert counts(audit) == expected


def test_a_score_well_above_the_threshold_needs_no_confirmation():
    audit = MissAudit()
    audit.observe(scored(0.5), 0)  # So the threshold is at most 0.5.
    audit.observe(scored(0.71), S, NOTHING)
    audit.observe(scored(0.69), 2 * S, NOTHING)
    assert counts(audit) == (1, 1, 0, 1)


def test_pending_detections_move_with_the_camera():
    for shift_px, expected in ((0.0, (1, 0, 1, 0)), (60.0, (1, 1, 0, 0))):
        audit = MissAudit()
        audit.observe(scored(0.5), 0, NOTHING)
        audit.move(None)
        audit.move(np.array([[1, 0, shift_px], [0, 1, 0], [0, 0, 1.0]]))
        audit.observe(scored(0.5, box=(70, 10, 110, 50)), S)
        assert counts(audit) == expected


def test_frames_without_a_candidate_do_not_overtake_pending_ones():
    audit = MissAudit()
    audit.observe(scored(0.5), 0, NOTHING)
    audit.observe(EMPTY, 100 * MS, NOTHING)
    assert counts(audit) == (0, 0, 0, 2)
    audit.observe(EMPTY, 200 * MS)
    audit.observe(EMPTY, 300 * MS)
    assert counts(audit) == (2, 0, 1, 0)


def test_the_rate_of_a_class_is_of_the_frames_that_show_it():
    audit = MissAudit()
    for at in range(6):  # Class 3 is missed twice and known four times; class 0 is always known.
        known = scored(0.5)
        other = scored(0.5, box=THERE, class_id=3)
        both = Detections.joined([known, other])
        audit.observe(both, 2 * at * S, known.xyxy_px if at < 2 else both.xyxy_px)
        audit.observe(both, 2 * at * S + 33 * MS)
    for at in range(6, 16):
        audit.observe(EMPTY, 2 * at * S, NOTHING)
    status = audit.status()
    assert status["audit.miss_rate"] == 2 / 16 and status["audit.class_3.miss_rate"] == 2 / 6
    low, high = anytime_interval(2, 6)
    assert (status["audit.class_3.miss_rate_low"], status["audit.class_3.miss_rate_high"]) == (low, high)
    assert not any("class_0" in key for key in status)


# The estimate.
def test_the_miss_rate_is_unavailable_before_the_first_audited_frame():
    status = MissAudit().status()
    assert status["audit.audited"] == 0 and status["audit.open"] is False
    assert [status[f"audit.miss_rate{end}"] for end in ("", "_low", "_high")] == [None] * 3


@given(st.lists(st.booleans(), min_size=1, max_size=150))
def test_the_estimate_is_the_share_of_missed_frames(outcomes):
    audit = MissAudit()
    observed(audit, *outcomes)
    status = audit.status()
    assert counts(audit) == (len(outcomes), sum(outcomes), 0, 0)
    assert status["audit.miss_rate"] == sum(outcomes) / len(outcomes)
    bounds = (status["audit.miss_rate_low"], status["audit.miss_rate_high"])
    assert bounds == anytime_interval(sum(outcomes), len(outcomes))


def test_an_epoch_ends_and_the_next_one_is_half_full():
    audit = MissAudit(max_miss_rate=1.0)
    half = EPOCH_FRAMES // 2
    at_ns = observed(audit, *[True] * half, *[False] * (half - 1))
    assert counts(audit)[:2] == (2 * half - 1, half)
    observed(audit, False, at_ns=at_ns)
    assert counts(audit)[:2] == (half, 0)


# Opening and closing.
def test_the_gate_opens_while_the_lower_bound_exceeds_the_limit_and_closes_again():
    audit, at_ns = MissAudit(max_miss_rate=0.2), 0
    for n in range(1, 30):
        at_ns = observed(audit, True, at_ns=at_ns)
        assert audit.is_open is (anytime_interval(n, n)[0] > 0.2)
        if audit.is_open:
            break
    assert 2 <= n <= 6 and audit.status()["audit.open"] is True
    closed_after = 0
    while audit.is_open:
        # The open gate infers every frame: evidence comes at the frame rate.
        audit.observe(EMPTY, at_ns + closed_after * 33 * MS, NOTHING)
        closed_after += 1
    assert anytime_interval(n, n + closed_after)[0] <= 0.2 < anytime_interval(n, n + closed_after - 1)[0]
    assert closed_after * 33 < 1000, "well below a second"


def test_what_the_open_gate_has_shown_counts_as_unknown_to_the_closed_one():
    audit = MissAudit(max_miss_rate=0.2)
    at_ns = observed(audit, *[True] * 10)
    assert audit.is_open
    found = boxes(THERE)
    audit.observe(found, at_ns, NOTHING)
    for i in range(1, 60):  # Consumers have known it since the first of these frames.
        audit.observe(found, at_ns + i * 33 * MS, found.xyxy_px)
    # One second of unnoticed frames, then it would have been found by the refresh.
    assert counts(audit)[:2] == (70, 10 + 31)


def test_an_object_that_the_gate_passes_by_itself_is_noticed():
    audit = MissAudit(max_miss_rate=0.2)
    at_ns = observed(audit, *[True] * 10)
    found = boxes(THERE)
    audit.observe(found, at_ns, NOTHING)
    audit.observe(found, at_ns + 33 * MS)
    for i in range(2, 20):
        audit.observe(found, at_ns + i * 33 * MS, found.xyxy_px)
    assert counts(audit)[:2] == (29, 11)


def test_a_change_after_long_quiet_opens_the_gate():
    audit = MissAudit(max_miss_rate=0.2)
    at_ns = observed(audit, *[False] * (EPOCH_FRAMES // 2))
    observed(audit, *[True] * 6, at_ns=at_ns)
    assert audit.status()["audit.miss_rate_low"] < 0.2 and audit.is_open, "the younger epoch opens it"


def test_the_limit_is_live():
    audit = MissAudit(max_miss_rate=0.9)
    observed(audit, *[True, False] * 20)
    assert not audit.is_open
    audit.max_miss_rate = 0.1
    assert audit.is_open
    audit.max_miss_rate = 1.0
    assert not audit.is_open


def test_an_acceptable_gate_hardly_ever_opens_and_a_bad_one_does():
    rng = np.random.default_rng(11)
    opened = {0.1: 0, 0.2: 0, 0.5: 0}
    for rate in opened:
        for _ in range(40):
            audit = MissAudit(max_miss_rate=0.2)
            at_ns, was_open = 0, False
            for missed in rng.random(150) < rate:
                at_ns = observed(audit, bool(missed), at_ns=at_ns)
                was_open |= audit.is_open
            opened[rate] += was_open
    assert opened[0.1] <= 1 and opened[0.2] <= 3 and opened[0.5] == 40


def test_flicker_opens_nothing_whatever_the_seed():
    """A detector whose unconfirmed detections come and go on a third of the frames."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        audit = MissAudit(rate=0.1, max_hz=1000.0, max_miss_rate=0.2, seed=seed)
        for i in range(3000):
            left = float(rng.integers(0, 500))
            found = scored(0.5, box=(left, 0, left + 20, 20)) if rng.random() < 0.33 else EMPTY
            audit.observe(found, i * S // 30, NOTHING if audit.sample(i * S // 30) else None)
            assert not audit.is_open
        assert audit.status()["audit.flicker"] > 30
