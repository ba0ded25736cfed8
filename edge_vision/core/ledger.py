"""The books: what became of every frame that came in.

    received = inferred + gated + rejected + superseded + failed + in_flight

holds at every moment. `in_flight` is the set of open accounts, not a difference, so the sum can be wrong
only if the code is, and `settle` refuses to close an account twice.

A process that hands frames to another process closes its own account as `handed_on`; the process that
ends the chain then keeps the whole book, from the ticks.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

FATES = ("inferred", "gated", "rejected", "superseded", "failed", "handed_on")


class LedgerError(Exception):
    """An account opened or closed twice: a bug in the caller, never bad input."""


@dataclass(frozen=True)
class LedgerSnapshot:
    """The books at one moment. `reasons` counts each fate by reason, `stages` the open accounts by stage."""

    received: int = 0
    fates: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    stages: Mapping[str, int] = field(default_factory=dict)

    @property
    def in_flight(self) -> int:
        return sum(self.stages.values())

    @property
    def balanced(self) -> bool:
        return self.received == sum(self.fates.values()) + self.in_flight

    def flat(self) -> dict[str, int]:
        """One number a key, for status messages: received, in_flight, every fate, `fate.reason`."""
        out = {"received": self.received, "in_flight": self.in_flight}
        out.update({fate: self.fates.get(fate, 0) for fate in FATES[:-1]})
        if self.fates.get("handed_on"):
            out["handed_on"] = self.fates["handed_on"]
        for fate, reasons in sorted(self.reasons.items()):
            out.update({f"{fate}.{reason}": n for reason, n in sorted(reasons.items())})
        return out


class Ledger:
    """Thread-safe books of one camera. Accounts are keyed by `Frame.seq`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._received = 0
        self._fates: Counter[str] = Counter()
        self._reasons: dict[str, Counter[str]] = {}
        self._open: dict[int, str] = {}

    def receive(self, seq: int, stage: str) -> None:
        """Open an account for a frame that came in at a stage."""
        with self._lock:
            if seq in self._open:
                raise LedgerError(f"frame {seq} was received twice")
            self._received += 1
            self._open[seq] = stage

    def advance(self, seq: int, stage: str) -> None:
        """Note that an open account is now with another stage."""
        with self._lock:
            if seq not in self._open:
                raise LedgerError(f"frame {seq} has no open account at {stage}")
            self._open[seq] = stage

    def settle(self, seq: int, fate: str, reason: str = "") -> None:
        """Close an account for good."""
        if fate not in FATES:
            raise LedgerError(f"'{fate}' is no fate: expected one of {', '.join(FATES)}")
        if not self.settle_if_open(seq, fate, reason):
            raise LedgerError(f"frame {seq} has no open account to settle as {fate}")

    def settle_if_open(self, seq: int, fate: str, reason: str = "") -> bool:
        """As `settle`, where another thread may be closing the account as well: False if it has."""
        with self._lock:
            if self._open.pop(seq, None) is None:
                return False
            self._fates[fate] += 1
            if reason:
                self._reasons.setdefault(fate, Counter())[reason] += 1
            if not self._open:
                self._idle.notify_all()
            return True

    def snapshot(self) -> LedgerSnapshot:
        """All figures of one moment."""
        with self._lock:
            reasons = {fate: dict(counts) for fate, counts in self._reasons.items()}
            return LedgerSnapshot(
                self._received, dict(self._fates), reasons, dict(Counter(self._open.values()))
            )

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no account is open. False after the time-out."""
        with self._lock:
            return self._idle.wait_for(lambda: not self._open, timeout_s)

    def reset(self) -> None:
        """Start new books. Frames that are in flight stay, as received."""
        with self._lock:
            self._received = len(self._open)
            self._fates.clear()
            self._reasons.clear()
