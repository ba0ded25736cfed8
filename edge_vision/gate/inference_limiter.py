"""Limits the mean rate of inferences: a token bucket, exact whatever the camera's rate.

Source: J. Turner, "New directions in communications (or which way to the information age?)", IEEE
Communications Magazine 24 (10), 1986.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

OPTIONAL = ("urgent",)
"""Inferred for min_fidelity alone."""
PROMISED = ("interval", "audit_open")
"""Inferred for max_delay_ms. All other reasons are never withheld: they are rare, or bound the blindness."""
BURST, SURPLUS = 3.0, 2.0
"""Most tokens, and those beyond what max_delay_ms may need next. A camera's period may be longer than the
interval between two tokens."""
DEBT = 2.0
"""Frames that pass without a token are paid for later, up to so many."""


@dataclass(frozen=True, slots=True)
class InferenceLimit:
    """rate_hz: mean rate of inferences. keep_delay: what max_delay_ms needs passes above that rate, too."""

    rate_hz: float
    keep_delay: bool


class PassCounts(NamedTuple):
    """Since the start. optional: passed for min_fidelity alone. withheld: kept from passing. overdue: those
    of them that max_delay_ms needed. needed: inferences that max_delay_ms needs."""

    frames: float = 0
    passed: float = 0
    optional: float = 0
    withheld: float = 0
    overdue: float = 0
    needed: float = 0

    def plus(self, other: PassCounts, sign: int = 1) -> PassCounts:
        """The sum, or with -1 the difference."""
        return PassCounts(*(a + sign * b for a, b in zip(self, other, strict=True)))


class InferenceLimiter:
    """Of one camera. The gate's worker calls the methods; any thread sets `limit` and reads `counts`."""

    def __init__(self) -> None:
        self.limit: InferenceLimit | None = None
        self.counts = PassCounts()
        self._tokens, self._last_ns = 1.0, 0

    def admits(self, reason: str, mono_ns: int, needed: float) -> bool:
        """Count a frame that is due for this reason, "" if it is not. False if it must be skipped.

        needed: the share of an inference that max_delay_ms needs on this frame.
        """
        limit = self.limit
        if limit is None:
            self._tokens = 1.0
        else:
            self._tokens = min(BURST, self._tokens + limit.rate_hz * (mono_ns - self._last_ns) * 1e-9)
        self._last_ns = mono_ns
        withheld = limit is not None and self._tokens < _price(reason, limit.keep_delay)
        passes = bool(reason) and not withheld
        if passes:
            self._tokens = max(self._tokens - 1.0, -DEBT)
        self.counts = self.counts.plus(
            PassCounts(
                1, passes, passes and reason in OPTIONAL, withheld, withheld and reason in PROMISED, needed
            )
        )
        return passes


def _price(reason: str, keep_delay: bool) -> float:
    """The tokens that must be there. While the delay cannot be kept, what is optional waits for a surplus."""
    if reason in OPTIONAL:
        return 1.0 if keep_delay else SURPLUS
    return 1.0 if reason in PROMISED and not keep_delay else -DEBT
