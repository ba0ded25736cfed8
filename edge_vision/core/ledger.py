"""Frame accounting: the fate of every received frame.

At any time received = inferred + gated + rejected + superseded + failed + in_flight. `in_flight` counts the
open frames and is not computed as a difference, so an accounting error is visible. `settle` raises if a frame
is settled twice.

A process that passes a frame to another process settles it as `handed_on`. The last process of the pipeline
reconstructs the accounting of all stages from the frame events.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_REASONS = 64
"""Per fate; further reasons are counted as OTHER, as peers can invent any number of them."""
OTHER = "other"
FATES = ("inferred", "gated", "rejected", "superseded", "failed", "handed_on")


class LedgerError(Exception):
    """A frame was received or settled twice: a bug in the caller, not bad input."""


@dataclass(frozen=True)
class LedgerSnapshot:
    """All counts at one time. reasons: frames per fate and reason. stages: open frames per stage."""

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
        """The counts as flat keys for status messages: received, in_flight, each fate, `fate.reason`."""
        out = {"received": self.received, "in_flight": self.in_flight}
        out.update({fate: self.fates.get(fate, 0) for fate in FATES[:-1]})
        if self.fates.get("handed_on"):
            out["handed_on"] = self.fates["handed_on"]
        for fate, reasons in sorted(self.reasons.items()):
            out.update({f"{fate}.{reason}": n for reason, n in sorted(reasons.items())})
        return out


class Ledger:
    """Frame accounting of one camera. Thread-safe. Frames are identified by `Frame.seq`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._received = 0
        self._fates: Counter[str] = Counter()
        self._reasons: dict[str, Counter[str]] = {}
        self._open: dict[int, str] = {}

    def receive(self, seq: int, stage: str) -> None:
        """Record a frame that a stage received."""
        with self._lock:
            if seq in self._open:
                raise LedgerError(f"frame {seq} was received twice")
            self._received += 1
            self._open[seq] = stage

    def advance(self, seq: int, stage: str) -> None:
        """Record that an open frame reached another stage."""
        with self._lock:
            if seq not in self._open:
                raise LedgerError(f"frame {seq} is not open at {stage}")
            self._open[seq] = stage

    def settle(self, seq: int, fate: str, reason: str = "") -> None:
        """Record the fate of an open frame."""
        if fate not in FATES:
            raise LedgerError(f"expected one of the fates {', '.join(FATES)}, got '{fate}'")
        if not self.settle_if_open(seq, fate, reason):
            raise LedgerError(f"frame {seq} is not open and cannot be settled as {fate}")

    def settle_if_open(self, seq: int, fate: str, reason: str = "") -> bool:
        """As `settle`, but returns False if another thread has settled the frame."""
        with self._lock:
            if self._open.pop(seq, None) is None:
                return False
            self._fates[fate] += 1
            if reason:
                counts = self._reasons.setdefault(fate, Counter())
                counts[reason if reason in counts or len(counts) < MAX_REASONS else OTHER] += 1
            if not self._open:
                self._idle.notify_all()
            return True

    def snapshot(self) -> LedgerSnapshot:
        """A consistent copy of all counts."""
        with self._lock:
            reasons = {fate: dict(counts) for fate, counts in self._reasons.items()}
            return LedgerSnapshot(
                self._received, dict(self._fates), reasons, dict(Counter(self._open.values()))
            )

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no frame is open. False after the timeout."""
        with self._lock:
            return self._idle.wait_for(lambda: not self._open, timeout_s)

    def reset(self) -> None:
        """Reset the counts. Frames in flight stay counted as received."""
        with self._lock:
            self._received = len(self._open)
            self._fates.clear()
            self._reasons.clear()
