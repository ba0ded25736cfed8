"""Which frames to infer, from a promise: the reaction, the fidelity, and the longest blindness.

`max_delay_ms` bounds the time from the first change that the tracks do not explain to the next inference.
Where all change is within the tracks, nothing new can be seen but in front of a known object, and that time
may be EXPLAINED_DELAYS times as long. Within it, a frame is inferred as soon as that is worth its price: an
account of allowed and expected losses sets the price such that the fidelity of what is published stays at
`min_fidelity` of the detector's own noise ceiling. While the picture does not differ from the last inferred
one, frames are skipped up to `max_blind_ms`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.gate.image_evidence import Evidence
from edge_vision.gate.loss_model import MIN_BOXES, LossModel

SCHEDULED_PASSES = ("cut", "interval", "urgent", "refresh")
SCHEDULED_SKIPS = ("still", "predicted", "explained")
PRICE_FACTOR = 2.0
"""The price of an inference at a balanced account, in allowed losses of one frame."""
PRICE_GAIN = 0.3
EXPLAINED_DELAYS = 2.0
"""Longest delay while the tracks explain all change, in max_delay_ms: an object may appear in front of a
known one."""
DELAY_TOLERANCE = 1.0011
"""Three periods of 30 Hz are 100 ms, those of NTSC's 30/1.001 Hz 100.1 ms: both keep 100 ms."""
MIN_CREDIT, MAX_CREDIT = -4.0, 2.0
"""Bounds of the account, in boxes per frame: what went wrong or well long ago does not count for ever."""
_PERIODS = 31
_MAX_JITTER = 0.1
"""Share of a period."""
_IRREGULAR = 1.25
"""A period this many times the usual one must be expected again if a fifth of them, or the last two, are."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What the user asks for.

    max_delay_ms: from an object's first frame to the inference that can find it. min_fidelity: agreement of
    what is published with every-frame detection, as a share of the detector's agreement with itself.
    max_blind_ms: longest time without inference while nothing changes.
    """

    max_delay_ms: float = 100.0
    min_fidelity: float = 0.97
    max_blind_ms: float = 2000.0


class Scheduler:
    """One camera's schedule. Pure: the caller gives stamps, evidence and results."""

    def __init__(self) -> None:
        self.losses = LossModel()
        self.restart()

    def restart(self) -> None:
        """Infer the next frame; what was learned about the detector stays."""
        self._inferred_ns: int | None = None
        self._first_ns = self._waiting_ns = 0
        self._last_ns: int | None = None
        self._frames = 0
        self._credit = 0.0
        self._periods_ns: deque[int] = deque(maxlen=_PERIODS)
        self._period_ns = self._jitter_ns = self._long_ns = 0.0
        self._pending: dict[int, tuple[int, float, bool]] = {}

    def decide(
        self,
        promise: Promise,
        evidence: Evidence,
        stamp_ns: int,
        explained: Callable[[], bool] = lambda: False,
    ) -> str:
        """The reason to infer or to skip a frame: one of SCHEDULED_PASSES or SCHEDULED_SKIPS.

        explained: whether what differs from the last inferred frame is within the tracks; called if needed.
        """
        if self._last_ns is not None and stamp_ns > self._last_ns:
            self._periods_ns.append(stamp_ns - self._last_ns)
            self._period_ns, self._jitter_ns, self._long_ns = _timing(self._periods_ns)
        self._last_ns = stamp_ns
        if self._inferred_ns is None:
            return "cut"
        self._frames += 1
        self._first_ns = self._first_ns or stamp_ns
        self._waiting_ns = self._waiting_ns or (0 if explained() else stamp_ns)
        if evidence.cut:
            return "cut"
        if self._too_late_next(stamp_ns - self._inferred_ns, promise.max_blind_ms):
            return "refresh"
        price = self._price(promise)
        if evidence.unchanged:
            loss = self.losses.still_loss()
            return "urgent" if loss > price else self._skip(promise, "still", loss)
        if self._is_due(promise, stamp_ns):
            return "interval"
        if self.losses.urgency(self._frames) > price:
            return "urgent"
        late = not self._waiting_ns and self._too_late_next(stamp_ns - self._first_ns, promise.max_delay_ms)
        return self._skip(promise, "explained" if late else "predicted", self.losses.loss(self._frames))

    def inferring(self, promise: Promise, stamp_ns: int, cut: bool) -> None:
        """The frame decided last is inferred, for whatever reason."""
        seconds = 0.0 if self._inferred_ns is None else (stamp_ns - self._inferred_ns) * 1e-9
        known = self._inferred_ns is not None and not cut
        self._pending[stamp_ns] = (self._frames, seconds, known)
        while len(self._pending) > 16:  # Results that never came: superseded or failed.
            del self._pending[next(iter(self._pending))]
        self._inferred_ns, self._first_ns, self._waiting_ns, self._frames = stamp_ns, 0, 0, 0
        self._pay(promise, 0.0)

    def observe(
        self,
        stamp_ns: int,
        found: Detections,
        low_score: Detections | None,
        predicted: Detections | None,
    ) -> None:
        """Take the result of an inference. predicted: the tracks on that frame from before the result."""
        frames, seconds, known = self._pending.pop(stamp_ns, (0, 0.0, False))
        self.losses.observe(found, low_score, predicted if known else None, frames, seconds)

    def status(self) -> dict[str, float]:
        """Flat figures for the gate's status."""
        return {
            "schedule.flicker_scale": self.losses.flicker_scale,
            "schedule.drift": self.losses.drift,
            "schedule.noise_ceiling": self.losses.ceiling,
            "schedule.credit": self._credit,
        }

    def needed_share(self, promise: Promise) -> float:
        """The share of the frames that max_delay_ms needs inferred while the picture changes."""
        if not self._period_ns:
            return 1.0
        spare_ns = self._allowed_ns(promise.max_delay_ms) - max(self._period_ns, self._long_ns)
        return 1.0 / (1 + max(0.0, spare_ns // self._period_ns + 1))

    def _allowed_ns(self, limit_ms: float) -> float:
        return limit_ms * 1e6 * DELAY_TOLERANCE + self._jitter_ns

    def _too_late_next(self, waited_ns: int, limit_ms: float) -> bool:
        """Whether what has waited so long would wait longer than limit_ms for the next frame.

        Counted in whole periods of the camera: with jittery stamps, an interval that the promise allows just
        about would otherwise be cut short on every other frame.
        """
        if not self._period_ns:
            return waited_ns > limit_ms * 1e6
        frames = round(waited_ns / self._period_ns) + 1
        next_ns = max(frames * self._period_ns, waited_ns + self._long_ns)
        return next_ns > self._allowed_ns(limit_ms)

    def _is_due(self, promise: Promise, stamp_ns: int) -> bool:
        """Whether max_delay_ms needs an inference of this frame."""
        assert self._inferred_ns is not None
        overdue = self._too_late_next(stamp_ns - self._first_ns, EXPLAINED_DELAYS * promise.max_delay_ms)
        waits = bool(self._waiting_ns)
        return overdue or (waits and self._too_late_next(stamp_ns - self._waiting_ns, promise.max_delay_ms))

    def _skip(self, promise: Promise, reason: str, loss: float) -> str:
        self._pay(promise, loss)
        return reason

    def _pay(self, promise: Promise, loss: float) -> None:
        """Book one frame: the allowed loss comes in, the expected loss goes out."""
        boxes = max(self.losses.boxes, MIN_BOXES)
        self._credit += self._allowed_share(promise) * boxes - loss
        self._credit = min(max(self._credit, MIN_CREDIT * boxes), MAX_CREDIT * boxes)

    def _allowed_share(self, promise: Promise) -> float:
        return 1.0 - promise.min_fidelity * self.losses.ceiling

    def _price(self, promise: Promise) -> float:
        boxes = max(self.losses.boxes, MIN_BOXES)
        allowed = self._allowed_share(promise) * boxes
        return allowed * PRICE_FACTOR * math.exp(PRICE_GAIN * self._credit / boxes)


def _timing(periods_ns: deque[int]) -> tuple[float, float, float]:
    """The mean period without gaps; the median deviation from it, at most _MAX_JITTER of it; the period to be
    expected in bursts, with many lost frames, or at a new rate, 0 if all are usual."""
    ordered = np.sort(np.array(periods_ns, np.float64))
    usual = ordered[: ordered.searchsorted(1.5 * ordered[len(ordered) // 2])]
    mean = float(np.add.reduce(usual)) / len(usual)
    deviation = float(np.sort(np.abs(usual - mean))[len(usual) // 2])
    lately = min(periods_ns[-1], periods_ns[-2]) if len(periods_ns) > 1 else 0
    long_ns = max(float(ordered[len(ordered) * 4 // 5]), float(lately))
    return mean, min(deviation, _MAX_JITTER * mean), long_ns if long_ns > _IRREGULAR * mean else 0.0
