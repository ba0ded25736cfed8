"""The threshold below which a crop is rejected, chosen to guarantee the requested recall.

Each event of the calibration part gives one number: the score of a crop of a random frame of it. Where the
events are independent, the number of those below a threshold is binomial, and the k-th smallest score is a
tolerance limit: rejecting below the (k+1)-th smallest of n scores misses a share of at most 1 - recall of all
such crops, with the stated confidence, as long as the exact lower bound of n - k hits out of n is at least
the recall. Nothing is assumed about how the scores are distributed.

Sources:
  S. S. Wilks (1941), "Determination of sample sizes for setting tolerance limits", Annals of Mathematical
  Statistics 12: the distribution-free limit.
  C. J. Clopper, E. S. Pearson (1934), Biometrika 26: the exact bound (see `metrics/clopper_pearson.py`).
  A. N. Angelopoulos, S. Bates, E. J. Candes, M. I. Jordan, L. Lei (2021), "Learn then Test",
  arXiv:2110.01052: the same for any risk; for a monotone one as here, trying thresholds in order costs
  nothing.
"""

from __future__ import annotations

import math

import numpy as np

from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.metrics.clopper_pearson import clopper_pearson_lower

SLACK = 1e-3
"""Relative margin of the fitted threshold, for the rounding of other runtimes."""
PRECISION = 0.95
"""Share of crops with a wanted object among those that are accepted outright."""


def events_needed(recall: float, confidence: float) -> int:
    """The minimum number of events, all hits, that guarantee a recall with a confidence."""
    return math.ceil(math.log(1.0 - confidence) / math.log(recall))


def reachable_recall(n: int, confidence: float) -> float:
    """The highest recall that n events can guarantee, if all are hits."""
    return float((1.0 - confidence) ** (1.0 / n)) if n else 0.0


def allowed_misses(n: int, recall: float, confidence: float) -> int:
    """How many of n events may be missed. Raises EvaluateError if n is too small even for none."""
    if n < events_needed(recall, confidence):
        can = math.floor(reachable_recall(n, confidence) * 1000) / 1000
        raise EvaluateError(
            f"expected at least {events_needed(recall, confidence)} events to guarantee a recall of "
            f"{recall:g} with {confidence:g} confidence, got {n}: give more video, "
            f"or ask for --recall {can:g} or less"
        )
    misses = 0
    while clopper_pearson_lower(n - misses - 1, n, confidence) >= recall:
        misses += 1
    return misses


def reject_below(scores: np.ndarray, recall: float, confidence: float) -> float:
    """The highest threshold that guarantees the recall. scores: (n,), one per event. Raises EvaluateError."""
    misses = allowed_misses(len(scores), recall, confidence)
    return float(np.sort(scores)[misses]) * (1.0 - SLACK)


def accept_from(scores: np.ndarray, labels: np.ndarray, lowest: float) -> float:
    """The lowest threshold, at least `lowest`, that accepts crops with PRECISION; 1.0 if there is none.

    scores, labels: (n,) of crops; label 1: wanted, 0: not.
    """
    order = np.argsort(-scores, kind="stable")
    precision = np.cumsum(labels[order] == 1) / np.arange(1, len(order) + 1)
    good = scores[order][precision >= PRECISION]
    return max(lowest, float(good[-1])) if len(good) else 1.0
