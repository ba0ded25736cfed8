"""How many crops may be looked at: halved when a frame took too long, restored one at a time.

Additive increase, multiplicative decrease (D.-M. Chiu and R. Jain 1989). Nothing waits: fewer crops are
larger ones, so that all that was wanted is still looked at, less closely.
"""

from __future__ import annotations

# Frames in time before one more is tried.
RESTORE_AFTER = 5
# Share of the latest frame in the mean time of a run.
LATEST = 0.2


class CropBudget:
    """The limit on crops for one detector. One caller at a time.

    most: the limit when all is well, 1 or more. budget_ms: for all runs of a frame, 0 = no limit of time.
    Both may be replaced at any time.
    """

    def __init__(self, most: int = 4, budget_ms: float = 0.0) -> None:
        self.most, self.budget_ms = most, budget_ms
        self.halved = self.restored = 0
        self._limit = most
        self._in_time = 0
        self._run_ms: float | None = None

    @property
    def limit(self) -> int:
        """1..most."""
        if self.budget_ms <= 0.0:
            self._limit = self.most
        self._limit = max(1, min(self._limit, self.most))
        return self._limit

    def ran(self, runs: int, total_ms: float) -> None:
        """A frame took so many runs of the model, and so long."""
        if runs < 1 or not total_ms >= 0.0:
            return
        each_ms = total_ms / runs
        self._run_ms = each_ms if self._run_ms is None else self._run_ms + LATEST * (each_ms - self._run_ms)
        limit = self.limit
        if self.budget_ms <= 0.0:
            return
        if total_ms > self.budget_ms:
            self._in_time = 0
            # Of what was used, if that was less: half of a limit that nobody reached helps nobody.
            if limit > 1:
                self._limit = max(1, min(limit, runs) // 2)
                self.halved += 1
            return
        self._in_time += 1
        fits = (limit + 1) * self._run_ms <= self.budget_ms
        if limit < self.most and fits and self._in_time >= RESTORE_AFTER:
            self._limit, self._in_time = limit + 1, 0
            self.restored += 1
