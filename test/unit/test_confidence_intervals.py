"""Intervals of a share: printed values from the literature, and the equations that define them."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vision.core.confidence_intervals import (
    at_least_probability,
    clopper_pearson_interval,
    clopper_pearson_lower,
    wilson_interval,
    wilson_lower,
)

# R. G. Newcombe (1998), "Two-sided confidence intervals for the single proportion", Statistics in Medicine
# 17, table I: method 3 (score) and method 5 (Clopper-Pearson), 95 %.
NEWCOMBE = [
    (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
    (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
    (0, 20, (0.0000, 0.1611), (0.0000, 0.1684)),
    (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
]
CONFIDENCES = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 0.999])


@st.composite
def counts(draw: st.DrawFn, most: int = 2000) -> tuple[int, int]:
    n = draw(st.integers(1, most))
    return draw(st.integers(0, n)), n


@pytest.mark.parametrize(("hits", "n", "wilson", "exact"), NEWCOMBE)
def test_printed_values(hits, n, wilson, exact):
    assert wilson_interval(hits, n) == pytest.approx(wilson, abs=6e-5)
    assert clopper_pearson_interval(hits, n, 0.95) == pytest.approx(exact, abs=6e-5)


def test_all_hits_have_a_closed_form():
    # The rule of three: without a miss in n tries the exact bound is tail ** (1 / n).
    for n in (1, 3, 299, 100_000):
        assert clopper_pearson_lower(n, n) == pytest.approx(0.05 ** (1 / n), rel=1e-12)
        assert clopper_pearson_interval(0, n)[1] == pytest.approx(1 - 0.025 ** (1 / n), rel=1e-9)
    assert clopper_pearson_lower(299, 299) > 0.99 > clopper_pearson_lower(298, 298)


@given(counts(), CONFIDENCES)
def test_wilson_ends_solve_the_score_equation(count, confidence):
    hits, n = count
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    for end in wilson_interval(hits, n, confidence):
        score = abs(hits / n - end)
        # At 0 and 1 both sides vanish, and the true end differs from it by rounding only.
        assert score == pytest.approx(z * math.sqrt(end * (1 - end) / n), rel=1e-9, abs=1e-9)


@given(counts(), CONFIDENCES)
def test_exact_ends_leave_half_of_the_rest_on_each_side(count, confidence):
    hits, n = count
    low, high = clopper_pearson_interval(hits, n, confidence)
    tail = (1 - confidence) / 2
    if hits > 0:
        assert at_least_probability(hits, n, low) == pytest.approx(tail, rel=1e-6)
    if hits < n:
        assert 1 - at_least_probability(hits + 1, n, high) == pytest.approx(tail, rel=1e-6)


@given(counts(most=60), st.floats(0.0, 1.0))
def test_the_tail_is_the_sum_of_its_terms(count, share):
    hits, n = count
    terms = (math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(hits, n + 1))
    assert at_least_probability(hits, n, share) == pytest.approx(math.fsum(terms), rel=1e-9, abs=1e-12)


@given(counts(), CONFIDENCES)
def test_both_hold_the_share_and_mirror(count, confidence):
    hits, n = count
    for interval in (wilson_interval, clopper_pearson_interval):
        low, high = interval(hits, n, confidence)
        assert 0.0 <= low <= hits / n <= high <= 1.0
        mirrored = interval(n - hits, n, confidence)
        assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-12)


@given(counts(), CONFIDENCES)
def test_a_one_sided_bound_is_an_end_of_a_wider_interval(count, confidence):
    hits, n = count
    if confidence > 0.5:
        two_sided = 2 * confidence - 1
        assert wilson_lower(hits, n, confidence) == pytest.approx(wilson_interval(hits, n, two_sided)[0])
        exact = clopper_pearson_interval(hits, n, two_sided)[0]
        assert clopper_pearson_lower(hits, n, confidence) == pytest.approx(exact)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("n", [20, 100, 300])
def test_coverage_is_as_promised(share, n):
    """Summed over all outcomes, not simulated: how often does the interval hold the true share?"""

    def coverage(interval) -> float:
        total = 0.0
        for hits in range(n + 1):
            low, high = interval(hits, n, 0.95)
            if low <= share <= high:
                total += math.comb(n, hits) * share**hits * (1 - share) ** (n - hits)
        return total

    assert coverage(clopper_pearson_interval) >= 0.95
    # Wilson's promise is on average; its worst dips near 0 and 1 are known (Brown et al., section 3.1.1).
    assert coverage(wilson_interval) >= 0.90


def test_nothing_tried_means_nothing_known():
    assert wilson_interval(0, 0) == clopper_pearson_interval(0, 0, 0.95) == (0.0, 1.0)
    assert wilson_lower(0, 0) == clopper_pearson_lower(0, 0) == 0.0


@pytest.mark.parametrize(
    ("hits", "n", "confidence"), [(-1, 5, 0.95), (6, 5, 0.95), (1, 5, 0.0), (1, 5, 1.0), (1, 5, 95.0)]
)
def test_nonsense_is_refused(hits, n, confidence):
    for function in (wilson_interval, clopper_pearson_interval, wilson_lower, clopper_pearson_lower):
        with pytest.raises(ValueError, match="expected"):
            function(hits, n, confidence)
