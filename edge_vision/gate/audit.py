"""The audit of skipped frames: a random sample goes to the detector anyway, and tells what was missed.

A gate that is only judged by what it lets pass looks perfect whatever it skips. Here every frame that is
about to be skipped has the same chance to be looked at, so the share of misses among those is an estimate of
the share among all, with an interval that says how far to trust it.
"""

from __future__ import annotations

import random
from collections import deque
from threading import Lock

import numpy as np

from edge_vision.core.confidence_intervals import wilson_interval
from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import best_iou

MATCH_IOU = 0.3
"""What overlaps a known object this much was known. Below the usual 0.5: known boxes are of some time ago."""
UNSEEN_RATE_HZ = 100.0
"""How many frames a second are assumed to be skipped in the first second, when nobody has counted yet."""
PEAK_HALF_LIFE_S = 60.0


class MissAudit:
    """Draws the sample, keeps the estimate, and says when the gate must open. Any thread may call it.

    rate, max_hz, max_miss_rate: may be replaced at any time; the next call uses them.
    """

    def __init__(
        self,
        rate: float = 0.01,
        max_hz: float = 1.0,
        max_miss_rate: float = 0.2,
        seed: int | None = None,
        window: int = 500,
        min_audits: int = 20,
        hold_s: float = 300.0,
    ) -> None:
        """Settings of the sample, the estimate and the opening.

        rate: share of the skipped frames to audit, 0..1. max_hz: at most so many audits a second, on average.
        max_miss_rate: the gate opens when the lower end of the interval is above it, for hold_s seconds.
        window: how many audits the estimate looks back. min_audits: how many it takes to open. An interval
        that is looked at after each audit excludes the truth at some time in far more than 5 % of all runs,
        mostly at the start: one miss of one has 0.21 as its lower end. With 20, a gate at half of
        max_miss_rate opened in at most 0.8 % of simulated runs of 1500 audits, and one at twice it in all,
        after 20 to 42 audits.
        """
        self.rate, self.max_hz, self.max_miss_rate = rate, max_hz, max_miss_rate
        self._random = random.Random(seed)
        self._lock = Lock()
        self._skips = _SkipRate()
        self._judged: deque[bool] = deque(maxlen=window)
        self._missed = 0
        self._sampled = 0
        self._min_audits = min_audits
        self._hold_ns = round(hold_s * 1e9)
        self._opened_ns: int | None = None

    @property
    def opens(self) -> bool:
        """Whether the gate must stay open, as of the last call of `is_open` or `judge`."""
        return self._opened_ns is not None

    def is_open(self, mono_ns: int) -> bool:
        """Whether the gate must stay open now. After the hold time the estimate starts anew: another try."""
        with self._lock:
            if self._opened_ns is not None and mono_ns - self._opened_ns >= self._hold_ns:
                self._opened_ns = None
                self._judged.clear()
                self._missed = 0
            return self._opened_ns is not None

    def sample(self, mono_ns: int) -> bool:
        """Whether this frame, which is about to be skipped, is to be audited. Call it for every such frame,
        once.

        The budget lowers the probability of every frame. To cut off instead, with no audit for a while after
        one, would look at the first frames of each quiet stretch and leave out the last ones, where misses
        are.
        """
        with self._lock:
            share = min(self.rate, self.max_hz / self._skips.peak_hz(mono_ns))
            drawn = self._random.random() < share
            self._sampled += drawn
            return drawn

    def judge(self, known_xyxy_px: np.ndarray, found: Detections, mono_ns: int) -> bool:
        """Tell what the detector found on an audited frame. Returns whether the gate would have missed
        something.

        known_xyxy_px: (n, 4) float32, the boxes that consumers were told of, moved to this frame. A miss is
        an audited frame with at least one found object that overlaps none of them, whatever their classes.
        """
        missed = bool((best_iou(found.xyxy_px, known_xyxy_px) < MATCH_IOU).any())
        with self._lock:
            if len(self._judged) == self._judged.maxlen:
                self._missed -= self._judged[0]
            self._judged.append(missed)
            self._missed += missed
            if self._opened_ns is None and self._is_too_bad():
                self._opened_ns = mono_ns
        return missed

    def _is_too_bad(self) -> bool:
        n = len(self._judged)
        return n >= self._min_audits and wilson_interval(self._missed, n)[0] > self.max_miss_rate

    def status(self) -> dict[str, object]:
        """The estimate: the share of audited frames with a miss and its 95 % Wilson interval, None where
        unknown.

        audit.sampled counts draws since the start; those that were never judged (superseded, failed) are not
        in audit.audited, which counts those of the window.
        """
        with self._lock:
            n, missed, sampled, opens = len(self._judged), self._missed, self._sampled, self.opens
        low, high = wilson_interval(missed, n) if n else (None, None)
        return {
            "audit.sampled": sampled,
            "audit.audited": n,
            "audit.missed": missed,
            "audit.miss_rate": missed / n if n else None,
            "audit.miss_rate_low": low,
            "audit.miss_rate_high": high,
            "audit.opens": opens,
        }


class _SkipRate:
    """How many frames a second are skipped where the camera shows nothing new: the most in any recent second.

    Not the rate of now. That is low in busy times, and a sample at that rate would look more often at the
    skipped frames of busy times than at others. The most is the camera's frame rate, as soon as it was quiet
    for a second.
    """

    def __init__(self) -> None:
        self._peak_hz: float | None = None
        self._since_ns: int | None = None
        self._count = 0

    def peak_hz(self, mono_ns: int) -> float:
        """Count a skipped frame. Returns skipped frames per second."""
        if self._since_ns is None:
            self._since_ns = mono_ns
        elapsed_s = (mono_ns - self._since_ns) * 1e-9
        if elapsed_s >= 1.0:
            faded = (self._peak_hz or 0.0) * 0.5 ** (elapsed_s / PEAK_HALF_LIFE_S)
            self._peak_hz = max(self._count / elapsed_s, faded)
            self._since_ns, self._count = mono_ns, 0
        self._count += 1
        # A camera that became faster is not waited for until the second is over.
        return max(UNSEEN_RATE_HZ if self._peak_hz is None else self._peak_hz, float(self._count))
