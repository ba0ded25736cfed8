"""Rate limit for log messages of one kind."""

from __future__ import annotations


class LogRateLimit:
    """Token bucket per kind of message: a `burst`, then one message per `refill_s`."""

    def __init__(self, burst: int = 5, refill_s: float = 600.0) -> None:
        self._burst, self._refill_s = burst, refill_s
        # Kind -> tokens, time of the last message, messages suppressed since the last admitted one.
        self._kinds: dict[str, tuple[float, float, int]] = {}

    def admit(self, kind: str, mono_s: float) -> int | None:
        """Number of messages suppressed since the last admitted one; None if this one is suppressed too."""
        tokens, then_s, suppressed = self._kinds.get(kind, (float(self._burst), mono_s, 0))
        tokens = min(float(self._burst), tokens + (mono_s - then_s) / self._refill_s)
        admitted = tokens >= 1.0
        self._kinds[kind] = (tokens - 1.0, mono_s, 0) if admitted else (tokens, mono_s, suppressed + 1)
        return suppressed if admitted else None
