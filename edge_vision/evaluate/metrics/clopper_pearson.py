"""The exact confidence bound of a proportion, for a claim that is made once, from a fixed number of trials.

Source: C. J. Clopper, E. S. Pearson (1934), "The use of confidence or fiducial limits illustrated in the case
of the binomial", Biometrika 26.
"""

from __future__ import annotations

import math

from edge_vision.core.confidence_intervals import bisect, check_counts


def clopper_pearson_lower(hits: int, n: int, confidence: float = 0.95) -> float:
    """The one-sided exact lower bound: the proportion exceeds it with at least this confidence.

    0.0 for n = 0. For hits = n it is (1 - confidence) ** (1 / n): 299 of 299 support 99 % with 95 %
    confidence. Raises ValueError unless 0 <= hits <= n and 0 < confidence < 1.
    """
    check_counts(hits, n, confidence)
    if hits == 0:
        return 0.0
    return bisect(lambda proportion: at_least_probability(hits, n, proportion) < 1 - confidence)


def at_least_probability(hits: int, n: int, proportion: float) -> float:
    """P(X >= hits) of a binomial X with n trials and this probability of a hit."""
    check_counts(hits, n, 0.5)
    if hits == 0:
        return 1.0
    return _incomplete_beta(float(hits), float(n - hits + 1), proportion)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    # The fraction converges fast below the mean; above it, the symmetry I_x(a, b) = 1 - I_1-x(b, a) applies.
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    front = math.exp(a * math.log(x) + b * math.log1p(-x) - log_beta) / a
    return front / _beta_fraction(a, b, x)


def _beta_fraction(a: float, b: float, x: float) -> float:
    """1 + d1/(1 + d2/(1 + ...)) of DLMF 8.17.22, by the modified Lentz method."""
    tiny = 1e-300
    value, up, down = 1.0, 1.0, 0.0
    # About sqrt(max(a, b)) terms are needed (Press et al., Numerical Recipes 6.4).
    for i in range(1, 200 + 10 * math.isqrt(int(max(a, b)))):
        term = _beta_term(i, a, b, x)
        down = 1.0 / (1.0 + term * down or tiny)
        up = 1.0 + term / up or tiny
        value *= up * down
        if abs(up * down - 1.0) < 1e-15:
            break
    return value


def _beta_term(i: int, a: float, b: float, x: float) -> float:
    m = i // 2
    if i % 2 == 0:
        return m * (b - m) * x / ((a + i - 1) * (a + i))
    return -(a + m) * (a + b + m) * x / ((a + i - 1) * (a + i))
