"""Rate limit for log messages of one kind."""

from __future__ import annotations


class LogRateLimit:
    """Lets `burst` lines of a kind through at once, then one each `refill_s`; counts what it holds back."""

    def __init__(self, burst: int = 5, refill_s: float = 600.0) -> None:
        self._burst, self._refill_s = burst, refill_s
        # Kind -> lines left, when that was so, lines held back since the last one.
        self._kinds: dict[str, tuple[float, float, int]] = {}

    def admit(self, kind: str, mono_s: float) -> int | None:
        """How many lines of this kind were held back since the last one; None: hold this one back too."""
        left, then_s, held = self._kinds.get(kind, (float(self._burst), mono_s, 0))
        left = min(float(self._burst), left + (mono_s - then_s) / self._refill_s)
        admitted = left >= 1.0
        self._kinds[kind] = (left - 1.0, mono_s, 0) if admitted else (left, mono_s, held + 1)
        return held if admitted else None
