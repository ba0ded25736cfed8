"""What failed or hung on this device, and when to try it again."""

from __future__ import annotations

import time

from edge_vision.core.running_clock import running_s

FIRST_RETRY_S, MAX_RETRY_S = 5.0, 300.0
STABLE_S = 60.0
"""A backend that ran for this long before it failed again starts with the first retry interval."""
LATE_MEMORY_S = 600.0
"""After an abandoned run returned late, the time limit is relaxed for this long."""


class FailureHistory:
    """Backends that failed while they ran, with an exponential back-off between attempts to load them."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        """Backend -> why it failed."""
        self.backoff_s = FIRST_RETRY_S
        self._failed_s: dict[str, float] = {}
        self._serving_s = 0.0
        self._retry_s = 0.0

    def __str__(self) -> str:
        return "; ".join(f"{name}: {why}" for name, why in list(self.reasons.items()))

    @property
    def retry_due(self) -> bool:
        return time.monotonic() >= self._retry_s

    @property
    def no_backend_works(self) -> str:
        wait_s = max(0.0, self._retry_s - time.monotonic())
        return f"no other backend works, the next attempt is in {wait_s:.0f} s"

    def serving_began(self) -> None:
        """A model serves from now on."""
        self._serving_s = time.monotonic()

    def record(self, name: str, reason: str) -> bool:
        """Record a failure. False if the same backend failed so recently that loading it again is futile."""
        now_s, before_s = time.monotonic(), self._failed_s.get(name)
        if before_s is not None and now_s - before_s < self.backoff_s:
            return False
        if before_s is not None and now_s - self._serving_s < STABLE_S:
            self._double()
        else:
            self.backoff_s = FIRST_RETRY_S
        self.schedule_retry()
        self.reasons = {**self.reasons, name: reason}
        self._failed_s[name] = now_s
        return True

    def forget(self, name: str) -> bool:
        """Drop the reason of a backend that works again. Returns whether there was one."""
        known = name in self.reasons
        self.reasons = {other: why for other, why in self.reasons.items() if other != name}
        return known

    def clear(self) -> None:
        self.reasons = {}

    def schedule_retry(self, longer: bool = False) -> None:
        """Allow the next attempt after the back-off; `longer` doubles it first."""
        if longer:
            self._double()
        self._retry_s = time.monotonic() + self.backoff_s

    def retry_now(self) -> None:
        self._retry_s = 0.0

    def _double(self) -> None:
        self.backoff_s = min(MAX_RETRY_S, 2.0 * self.backoff_s)


class HungRuns:
    """Runs that were abandoned, by the id of their model, and how long the last late one took."""

    def __init__(self) -> None:
        self._begun_s: dict[int, float] = {}
        self._late_s, self._late_until_s = 0.0, 0.0

    def __bool__(self) -> bool:
        return bool(self._begun_s)

    def limit_s(self, limit_s: float) -> float:
        """The time limit for a run. A late return was no hang: others may take twice as long as it did."""
        return max(limit_s, 2.0 * self._late_s) if running_s() < self._late_until_s else limit_s

    def add(self, model_id: int, lasted_s: float) -> None:
        """An abandoned run that has lasted this long."""
        self._begun_s[model_id] = running_s() - lasted_s

    def end(self, model_id: int) -> float | None:
        """The duration in s of an abandoned run that has returned, None if there is none."""
        begun_s = self._begun_s.pop(model_id, None)
        if begun_s is None:
            return None
        now_s = running_s()
        self._late_s, self._late_until_s = now_s - begun_s, now_s + LATE_MEMORY_S
        return self._late_s
