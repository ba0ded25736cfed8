"""Limit on the number of crops: halved when a frame exceeds its time budget, restored one at a time.

Additive increase, multiplicative decrease (D.-M. Chiu and R. Jain 1989). With fewer crops each one is larger,
so all regions are still covered, at a lower scale.
"""

from __future__ import annotations

# Frames within the budget before the limit is raised.
RESTORE_AFTER = 5
# Weight of the latest frame in the exponential mean of an inference's time.
MEAN_WEIGHT = 0.2


class CropBudget:
    """Limit on crops for one detector. One caller at a time.

    max_crops: the upper limit, 1 or more. budget_ms: for all inferences of a frame, 0 = unlimited. Both may
    be replaced at any time.
    """

    def __init__(self, max_crops: int = 4, budget_ms: float = 0.0) -> None:
        self.max_crops, self.budget_ms = max_crops, budget_ms
        self.halved = self.restored = 0
        self._limit = max_crops
        self._in_time = 0
        self._run_ms: float | None = None

    @property
    def limit(self) -> int:
        """The present limit, 1..max_crops."""
        if self.budget_ms <= 0.0:
            self._limit = self.max_crops
        self._limit = max(1, min(self._limit, self.max_crops))
        return self._limit

    def add(self, runs: int, total_ms: float) -> None:
        """Record the inferences of a frame and their total time."""
        if runs < 1 or not total_ms >= 0.0:
            return
        each_ms = total_ms / runs
        self._run_ms = (
            each_ms if self._run_ms is None else self._run_ms + MEAN_WEIGHT * (each_ms - self._run_ms)
        )
        limit = self.limit
        if self.budget_ms <= 0.0:
            return
        if total_ms > self.budget_ms:
            self._in_time = 0
            # Halve the number in use: half of an unused limit would change nothing.
            if limit > 1:
                self._limit = max(1, min(limit, runs) // 2)
                self.halved += 1
            return
        self._in_time += 1
        fits = (limit + 1) * self._run_ms <= self.budget_ms
        if limit < self.max_crops and fits and self._in_time >= RESTORE_AFTER:
            self._limit, self._in_time = limit + 1, 0
            self.restored += 1
