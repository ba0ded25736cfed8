"""The limit on crops: within its bounds whatever comes, halved at once, restored one by one."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from edge_vision.detect.crop_budget import RESTORE_AFTER, CropBudget

RUN = st.tuples(st.integers(-1, 40), st.floats(-10, 1e4) | st.sampled_from([float("nan"), float("inf")]))


@given(st.integers(1, 32), st.floats(0.1, 1000), st.lists(RUN, max_size=60))
def test_the_limit_stays_within_its_bounds(most, budget_ms, runs):
    one = CropBudget(most, budget_ms)
    for count, total_ms in runs:
        before = one.limit
        one.add(count, total_ms)
        after = one.limit
        assert 1 <= after <= most
        assert after <= before + 1, "restored one at a time"
        if count >= 1 and total_ms > budget_ms and before > 1:
            assert after <= max(1, before // 2), "halved at once"
        elif not (count >= 1 and total_ms > budget_ms):
            assert after >= before, "only what took too long lowers it"


@given(st.integers(1, 32), st.floats(1, 100), st.floats(1, 500))
def test_it_settles_at_the_most_that_fits(most, each_ms, budget_ms):
    one = CropBudget(most, budget_ms)
    seen = []
    for _ in range(40 * RESTORE_AFTER):
        one.add(one.limit, one.limit * each_ms)
        seen.append(one.limit)
    fits = int(budget_ms / each_ms)
    # Rounding of the running mean may cost the last one where it fits exactly.
    assert max(1, min(most, fits) - 1) <= seen[-1] <= max(1, min(most, fits))
    assert len(set(seen[-RESTORE_AFTER:])) == 1, "it does not swing"


def test_it_recovers_one_by_one():
    one = CropBudget(8, 100.0)
    one.add(8, 400.0)
    one.add(4, 200.0)
    one.add(2, 200.0)
    assert (one.limit, one.halved) == (1, 3)
    one.add(1, 500.0)
    assert (one.limit, one.halved) == (1, 3), "one is the floor"
    limits = []
    for _ in range(60 * RESTORE_AFTER):
        one.add(one.limit, one.limit * 10.0)
        limits.append(one.limit)
    assert sorted(limits) == limits and limits[-1] == 8
    assert all(b - a <= 1 for a, b in pairwise(limits))
    assert one.restored == 7


def test_no_budget_is_no_limit_and_settings_act_at_once():
    one = CropBudget(4, 0.0)
    one.add(4, 1e6)
    assert one.limit == 4
    one.budget_ms = 10.0
    one.add(4, 1e6)
    assert one.limit == 2
    one.max_crops = 1
    assert one.limit == 1
    one.budget_ms, one.max_crops = 0.0, 6
    assert one.limit == 6


def test_the_number_in_use_is_halved():
    one = CropBudget(16, 100.0)
    one.add(4, 120.0)
    assert one.limit == 2
