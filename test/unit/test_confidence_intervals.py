"""Bounds of a proportion: published values, the equations that define them, and coverage at all times."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vision.core.confidence_intervals import anytime_exceeds, anytime_interval
from edge_vision.evaluate.metrics.clopper_pearson import at_least_probability, clopper_pearson_lower

# R. G. Newcombe (1998), "Two-sided confidence intervals for the single proportion", Statistics in Medicine
# 17, table I, method 5 (Clopper-Pearson), 95 % two-sided.
NEWCOMBE = [
    (81, 263, (0.2527, 0.3676)),
    (15, 148, (0.0578, 0.1617)),
    (0, 20, (0.0000, 0.1684)),
    (1, 29, (0.0009, 0.1776)),
]
CONFIDENCES = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 0.999])


@st.composite
def counts(draw: st.DrawFn, most: int = 2000) -> tuple[int, int]:
    n = draw(st.integers(1, most))
    return draw(st.integers(0, n)), n


@pytest.mark.parametrize(("hits", "n", "exact"), NEWCOMBE)
def test_published_values(hits, n, exact):
    assert clopper_pearson_lower(hits, n, 0.975) == pytest.approx(exact[0], abs=6e-5)
    assert 1 - clopper_pearson_lower(n - hits, n, 0.975) == pytest.approx(exact[1], abs=6e-5)


def test_a_sample_without_misses_has_a_closed_form():
    for n in (1, 3, 299, 100_000):
        assert clopper_pearson_lower(n, n) == pytest.approx(0.05 ** (1 / n), rel=1e-12)
    assert clopper_pearson_lower(299, 299) > 0.99 > clopper_pearson_lower(298, 298)


@given(counts(), CONFIDENCES)
def test_the_exact_bound_solves_its_equation(count, confidence):
    hits, n = count
    low = clopper_pearson_lower(hits, n, confidence)
    assert 0.0 <= low <= 1.0
    if hits > 0:
        assert at_least_probability(hits, n, low) == pytest.approx(1 - confidence, rel=1e-6)


@given(counts(most=60), st.floats(0.0, 1.0))
def test_the_tail_is_the_sum_of_its_terms(count, proportion):
    hits, n = count
    terms = (math.comb(n, k) * proportion**k * (1 - proportion) ** (n - k) for k in range(hits, n + 1))
    assert at_least_probability(hits, n, proportion) == pytest.approx(math.fsum(terms), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("proportion", [0.001, 0.05, 0.5, 0.99])
@pytest.mark.parametrize("n", [20, 100, 300])
def test_the_exact_bound_covers_as_stated(proportion, n):
    """Summed over all outcomes, not simulated."""
    covered = (
        math.comb(n, hits) * proportion**hits * (1 - proportion) ** (n - hits)
        for hits in range(n + 1)
        if clopper_pearson_lower(hits, n) <= proportion
    )
    assert math.fsum(covered) >= 0.95


@given(counts(), CONFIDENCES)
def test_the_anytime_interval_contains_the_mean_and_mirrors(count, confidence):
    hits, n = count
    low, high = anytime_interval(hits, n, confidence)
    assert 0.0 <= low <= hits / n <= high <= 1.0
    assert (1 - high, 1 - low) == pytest.approx(anytime_interval(n - hits, n, confidence), abs=1e-12)
    # Betting against every proportion at once costs something: it is wider than a bound for one fixed n.
    assert low <= clopper_pearson_lower(hits, n, confidence) + 1e-12


def test_the_martingale_is_fair():
    """Its mean over the next trial is its value: log wealth from the lower bound's own definition."""

    def wealth(hits: int, n: int, p: float) -> float:
        log_beta = math.lgamma(hits + 0.5) + math.lgamma(n - hits + 0.5) - math.lgamma(n + 1)
        return math.exp(log_beta - math.log(math.pi)) / (p**hits * (1 - p) ** (n - hits))

    for hits, n, p in ((3, 10, 0.1), (0, 5, 0.02), (40, 100, 0.3)):
        mean = p * wealth(hits + 1, n + 1, p) + (1 - p) * wealth(hits, n + 1, p)
        assert mean == pytest.approx(wealth(hits, n, p))
        low = anytime_interval(hits, n)[0]
        if hits:
            assert wealth(hits, n, low) == pytest.approx(20.0)
            assert anytime_exceeds(hits, n, low - 1e-9) and not anytime_exceeds(hits, n, low + 1e-9)


@pytest.mark.parametrize("proportion", [0.01, 0.1, 0.2, 0.5])
def test_coverage_at_all_times_simultaneously(proportion):
    """2000 sequences of 2000 trials, each watched after every trial: optional stopping is allowed."""
    n_trials = 2000
    most, least = np.zeros(n_trials + 1), np.zeros(n_trials + 1)
    high = low = 0
    for n in range(1, n_trials + 1):
        # The most and the fewest hits with which the interval still contains the proportion.
        while high < n and not anytime_exceeds(high + 1, n, proportion):
            high += 1
        while anytime_exceeds(n - low, n, 1.0 - proportion):
            low += 1
        most[n], least[n] = high, low
    rng = np.random.default_rng(20)
    hits = np.cumsum(rng.random((2000, n_trials)) < proportion, axis=1)
    covered = ((hits <= most[1:]) & (hits >= least[1:])).all(axis=1)
    assert covered.mean() >= 0.95


def test_no_trials_give_no_information():
    assert anytime_interval(0, 0) == (0.0, 1.0)
    assert clopper_pearson_lower(0, 0) == 0.0


@pytest.mark.parametrize(
    ("hits", "n", "confidence"), [(-1, 5, 0.95), (6, 5, 0.95), (1, 5, 0.0), (1, 5, 1.0), (1, 5, 95.0)]
)
def test_impossible_arguments_are_refused(hits, n, confidence):
    for function in (clopper_pearson_lower, anytime_interval):
        with pytest.raises(ValueError, match="expected"):
            function(hits, n, confidence)
