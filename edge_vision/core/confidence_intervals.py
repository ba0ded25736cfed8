"""Confidence intervals of a share: `hits` out of `n` independent tries.

Which one: Wilson's for a live display, its coverage is the promised one on average (Brown, Cai, DasGupta);
Clopper and Pearson's where less than the promise is not allowed, as in a claim about recall: it covers at
least as often as promised for every true share, and is wider for it.

Sources:
  E. B. Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA 22.
  C. J. Clopper, E. S. Pearson (1934), "The use of confidence or fiducial limits illustrated in the case of
  the binomial", Biometrika 26.
  L. D. Brown, T. T. Cai, A. DasGupta (2001), "Interval estimation for a binomial proportion", Statistical
  Science 16: why not the plain p +- z sqrt(pq/n), which is [1, 1] after any number of hits without a miss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

# Bisection halves [0, 1] this often: below it neighbouring doubles are reached.
_HALVINGS = 60


def wilson_interval(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided Wilson score interval of a share, (low, high) within 0..1.

    Its ends are the shares p with |hits/n - p| = z sqrt(p (1 - p) / n). (0.0, 1.0) for n = 0: nothing known.
    Raises ValueError unless 0 <= hits <= n and 0 < confidence < 1.
    """
    _check(hits, n, confidence)
    return _wilson(hits, n, (1 + confidence) / 2)


def wilson_lower(hits: int, n: int, confidence: float = 0.95) -> float:
    """The one-sided lower Wilson bound: the share is above it with this confidence. 0.0 for n = 0."""
    _check(hits, n, confidence)
    return _wilson(hits, n, confidence)[0]


def clopper_pearson_interval(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided exact interval of a share, (low, high) within 0..1.

    Its ends are the shares under which `hits` or more, or `hits` or fewer, would come with probability
    (1 - confidence) / 2. (0.0, 1.0) for n = 0. Raises ValueError as `wilson_interval`.
    """
    _check(hits, n, confidence)
    tail = (1 - confidence) / 2
    # The upper bound of the hits is the lower bound of the misses, seen from the other end.
    return _exact_lower(hits, n, tail), 1.0 - _exact_lower(n - hits, n, tail)


def clopper_pearson_lower(hits: int, n: int, confidence: float = 0.95) -> float:
    """The one-sided exact lower bound: the share is above it with at least this confidence. 0.0 for n = 0.

    For hits = n it is (1 - confidence) ** (1 / n): 299 of 299 are needed to claim 99 % with 95 % confidence.
    """
    _check(hits, n, confidence)
    return _exact_lower(hits, n, 1 - confidence)


def at_least_probability(hits: int, n: int, share: float) -> float:
    """P(X >= hits) of a binomial X out of n tries with this share of hits."""
    _check(hits, n, 0.5)
    if hits == 0:
        return 1.0
    return _incomplete_beta(float(hits), float(n - hits + 1), share)


def _check(hits: int, n: int, confidence: float) -> None:
    if not 0 <= hits <= n:
        raise ValueError(f"expected 0 <= hits <= n, got {hits} of {n}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"expected a confidence between 0 and 1, such as 0.95, got {confidence}")


def _wilson(hits: int, n: int, quantile: float) -> tuple[float, float]:
    if n == 0:
        return 0.0, 1.0
    z2 = NormalDist().inv_cdf(quantile) ** 2
    share = hits / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # Exactly 0 and 1 at the ends, where rounding would leave 1e-18.
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    return low, 1.0 if hits == n else min(1.0, centre + half)


def _exact_lower(hits: int, n: int, tail: float) -> float:
    """The share under which `hits` or more come with probability `tail`."""
    if hits == 0:
        return 0.0
    return _bisect(lambda share: at_least_probability(hits, n, share) < tail)


def _bisect(below: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if below(middle):
            low = middle
        else:
            high = middle
    # The lower end: a bound may be too modest by a rounding, never too bold.
    return low


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    # The fraction converges fast on this side of the mean; the other side is its mirror image.
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
