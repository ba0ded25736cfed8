"""The linear head: logistic regression on frozen features, by Newton's method.

The loss is convex and regularized, so the solution is unique and every run finds it. scikit-learn's
LogisticRegression computes the same, but is a package of 100 MB.

Source: T. Hastie, R. Tibshirani, J. Friedman (2009), "The Elements of Statistical Learning", 4.4.1
(iteratively reweighted least squares) and 18.4 (ridge penalty if features outnumber examples).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_vision.evaluate.errors import EvaluateError

RIDGE = 0.2
"""Penalty on standardized weights, relative to the mean loss. Between 0.02 and 2 the held-out figures differ
little; a larger value generalizes better to other scenes (measured on the public clips)."""
STD_FLOOR = 0.05
"""Added to a feature's standard deviation, so that a nearly constant feature is not amplified."""
_STEPS = 30
_DONE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """weight (k,) float64 and bias: the logit of a crop is features @ weight + bias."""

    weight: np.ndarray
    bias: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(n,) float64 scores in 0..1 for features (n, k)."""
        logits = features.astype(np.float64) @ self.weight + self.bias
        return np.asarray(_sigmoid(logits))


def fit_head(features: np.ndarray, labels: np.ndarray, ridge: float = RIDGE) -> LinearHead:
    """The head that separates labels 1 and 0, with both classes weighted equally.

    features: (n, k). labels: (n,) of 0 and 1. Raises EvaluateError if a class is missing.
    """
    counts = [int((labels == value).sum()) for value in (0, 1)]
    if not all(counts):
        raise EvaluateError(
            f"expected crops with and without a wanted object, got {counts[1]} with and {counts[0]} without; "
            "use a video that shows both, or other --labels"
        )
    mean, std = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64) + STD_FLOOR
    scaled = np.hstack([(features - mean) / std, np.ones((len(features), 1))])
    parts = np.where(labels == 1, 0.5 / counts[1], 0.5 / counts[0])
    solution = _newton(scaled, labels.astype(np.float64), parts, ridge)
    weight = solution[:-1] / std
    return LinearHead(weight, float(solution[-1] - mean @ weight))


def _newton(x: np.ndarray, y: np.ndarray, parts: np.ndarray, ridge: float) -> np.ndarray:
    """Minimize the sum of parts * log loss plus ridge / 2 * |w|^2; the last weight (bias) is free."""
    w = np.zeros(x.shape[1])
    penalty = np.full(x.shape[1], ridge)
    penalty[-1] = 1e-9
    for _ in range(_STEPS):
        p = _sigmoid(x @ w)
        gradient = x.T @ (parts * (p - y)) + penalty * w
        curvature = x.T @ (x * (parts * p * (1.0 - p))[:, None])
        curvature[np.diag_indices_from(curvature)] += penalty
        step = np.linalg.solve(curvature, gradient)
        step *= _damping(x, y, parts, penalty, w, step)
        w = w - step
        if np.abs(step).max() < _DONE:
            break
    return w


def _damping(
    x: np.ndarray, y: np.ndarray, parts: np.ndarray, penalty: np.ndarray, w: np.ndarray, step: np.ndarray
) -> float:
    """The step size, halved until the loss decreases: a full step may overshoot far from the solution."""

    def loss(at: np.ndarray) -> float:
        logits = x @ at
        return float(parts @ (np.logaddexp(0.0, logits) - y * logits) + 0.5 * penalty @ (at * at))

    before, scale = loss(w), 1.0
    while scale > 1e-4 and loss(w - scale * step) > before:
        scale /= 2.0
    return scale


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))
