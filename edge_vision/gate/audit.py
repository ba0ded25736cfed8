"""The audit: a random sample of the frames that the gate would skip is inferred anyway, to measure misses.

    would be skipped -> sampled -> detected, unknown to consumers -> confirmed by later results -> miss
                                                                  -> not confirmed              -> flicker

The miss rate is the share of such frames with a miss, as a confidence sequence: valid at all times at once,
so that the gate may be opened and closed by it.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

import numpy as np

from edge_vision.core.confidence_intervals import anytime_exceeds, anytime_interval
from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import best_iou, iou_matrix
from edge_vision.core.geometry.homography import transform_boxes

MATCH_IOU = 0.3
"""Boxes that overlap this much are one object. Below the usual 0.5, as known boxes may be seconds old."""
CONFIRM_RESULTS = 3
CONFIRM_MS = 500.0
"""A detection is confirmed by one of the next results: as many as this, or the first after this time."""
CONFIRM_SCORE_MARGIN = 0.2
"""A detection whose score exceeds the threshold by this needs no confirmation."""
UNNOTICED_MS = 1000.0
"""How long a closed gate would leave an object unnoticed: half of the default max_blind_ms."""
PUBLISHED_MS = 2000.0
"""An object published within this time is no miss: a detector's score flickers."""
EPOCH_FRAMES = 400
UNMEASURED_RATE_HZ = 100.0
"""Assumed rate of skipped frames during the first second."""
PEAK_HALF_LIFE_S = 60.0
_LEAST_SHARE = 1e-12
"""A smaller share is none: its inverse may be infinite."""


class MissAudit:
    """Draws the sample, estimates the miss rate, and opens the gate while it is too high. Thread-safe.

    rate: share of the skipped frames to sample, 0..1. max_hz: mean samples per second, at most.
    max_miss_rate: the gate is open while the lower confidence bound exceeds it. All may be set at any time.

    The estimate forgets in epochs: each confidence sequence ends after EPOCH_FRAMES, and the next one has
    then run for half as many. The older one is reported; either can open the gate, so that a change is
    noticed early.
    """

    def __init__(
        self, rate: float = 0.01, max_hz: float = 1.0, max_miss_rate: float = 0.2, seed: int | None = None
    ) -> None:
        self.rate, self.max_hz, self.max_miss_rate = rate, max_hz, max_miss_rate
        self.on_miss: Callable[[int, set[int]], None] = lambda stamp_ns, class_ids: None
        """Called, under a lock, with each frame with a miss and the missed classes."""
        self._lock = Lock()
        self._skips = _SkipRate()
        self._sample = _StratifiedSample(random.Random(seed))
        self._sampled = 0
        self._least_score = 1.0
        self._pending: deque[_AuditedFrame] = deque()
        self._unnoticed, self._published = _Unnoticed(), _PublishedObjects()
        self._epochs: deque[_Epoch] = deque([_Epoch()], maxlen=2)

    @property
    def is_open(self) -> bool:
        """Whether every frame must be inferred: the miss rate exceeds max_miss_rate, at 95 % confidence."""
        with self._lock:
            return self._is_open()

    def _is_open(self) -> bool:
        return any(anytime_exceeds(one.missed, one.audited, self.max_miss_rate) for one in self._epochs)

    def sample(self, mono_ns: int) -> bool:
        """Whether to infer this frame, which would be skipped. Call it once for each such frame.

        max_hz lowers the probability of every frame. A cut-off after each sample would favour the first
        frames of each quiet stretch over the last ones, where misses are.
        """
        with self._lock:
            drawn = self._sample.draw(min(self.rate, self.max_hz / self._skips.peak_hz(mono_ns)))
            self._sampled += drawn
            return drawn

    def move(self, camera_motion: np.ndarray | None) -> None:
        """Move all objects with the camera, (3, 3) source pixels; None = unknown, they stay, which makes the
        audit stricter."""
        with self._lock:
            if camera_motion is not None:
                self._published.move(camera_motion)
                for one in self._pending:
                    one.xyxy_px = transform_boxes(one.xyxy_px, camera_motion)

    def known(self, mono_ns: int) -> np.ndarray:
        """(n, 4) float64 xyxy_px of the objects that consumers know: published within PUBLISHED_MS."""
        with self._lock:
            return self._published.boxes(mono_ns)

    def forget_known(self) -> None:
        """After a cut, or with another camera, consumers know no object."""
        with self._lock:
            self._published = _PublishedObjects()

    def observe(
        self, found: Detections, mono_ns: int, known_xyxy_px: np.ndarray | None = None, stamp_ns: int = 0
    ) -> None:
        """Take the result of an inference. Call it for each, in the order of the frames.

        known_xyxy_px: (n, 4) of `known` on this frame, where the gate would have skipped it: it was sampled,
        or inferred because `is_open`. None where the gate passed the frame by itself. stamp_ns: of the frame.
        """
        with self._lock:
            for one in self._pending:
                one.confirm(found, mono_ns)
            self._least_score = min(self._least_score, float(found.scores.min(initial=1.0)))
            if known_xyxy_px is None:
                self._unnoticed.clear()
            else:
                self._pending.append(self._audited(found, mono_ns, known_xyxy_px, stamp_ns))
            self._published.add(found.xyxy_px, mono_ns)
            # In order: frames without a candidate must not overtake those that wait for confirmation.
            while self._pending and self._pending[0].settled:
                self._record(self._pending.popleft())

    def _audited(
        self, found: Detections, mono_ns: int, known_xyxy_px: np.ndarray, stamp_ns: int
    ) -> _AuditedFrame:
        new = best_iou(found.xyxy_px, known_xyxy_px) < MATCH_IOU
        if self._is_open():
            # Consumers know what the open gate has shown, but the closed gate would have skipped it.
            new |= self._unnoticed.contains(found.xyxy_px, mono_ns)
        self._unnoticed.update(found.xyxy_px[new], mono_ns)
        # The lowest published score stands for the detector's threshold, which the gate does not know.
        sure = found.scores >= self._least_score + CONFIRM_SCORE_MARGIN
        return _AuditedFrame(
            stamp_ns,
            mono_ns,
            known_classes=frozenset(found.class_ids[~new].tolist()),
            missed_classes=set(found.class_ids[new & sure].tolist()),
            xyxy_px=found.xyxy_px[new & ~sure],
            class_ids=found.class_ids[new & ~sure],
        )

    def _record(self, frame: _AuditedFrame) -> None:
        if frame.missed_classes:
            self.on_miss(frame.stamp_ns, frame.missed_classes)
        for epoch in self._epochs:
            epoch.add(frame)
        if self._epochs[-1].audited == EPOCH_FRAMES // 2:
            self._epochs.append(_Epoch())
            self._least_score = 1.0

    def status(self) -> dict[str, object]:
        """The miss rate with its anytime-valid 95 % interval, None before the first audited frame.

        audit.sampled counts draws since the start, superseded and failed frames included. audit.audited,
        .missed and .flicker (only unconfirmed detections) are frames of the current epoch; audit.pending wait
        for confirmation. audit.class_N.*: of the frames on which the detector found class N, the share on
        which the gate would have missed one; for classes with a miss.
        """
        with self._lock:
            epoch, sampled, pending = self._epochs[0], self._sampled, len(self._pending)
            status: dict[str, object] = {
                "audit.sampled": sampled,
                "audit.pending": pending,
                "audit.audited": epoch.audited,
                "audit.missed": epoch.missed,
                "audit.flicker": epoch.flicker,
                "audit.open": self._is_open(),
                **_miss_rate("audit.", epoch.missed, epoch.audited),
            }
            for class_id, missed in sorted(epoch.missed_by_class.items()):
                status |= _miss_rate(f"audit.class_{class_id}.", missed, epoch.audited_by_class[class_id])
            return status


def _miss_rate(prefix: str, missed: int, audited: int) -> dict[str, float | None]:
    low, high = anytime_interval(missed, audited) if audited else (None, None)
    return {
        f"{prefix}miss_rate": missed / audited if audited else None,
        f"{prefix}miss_rate_low": low,
        f"{prefix}miss_rate_high": high,
    }


@dataclass(slots=True, eq=False)
class _AuditedFrame:
    """A frame that the gate would have skipped. xyxy_px, class_ids: new detections to be confirmed."""

    stamp_ns: int
    mono_ns: int
    known_classes: frozenset[int]
    missed_classes: set[int]
    xyxy_px: np.ndarray
    class_ids: np.ndarray
    settled: bool = field(init=False)
    flicker: bool = False
    _results: int = 0

    def __post_init__(self) -> None:
        self.settled = len(self.class_ids) == 0

    def confirm(self, found: Detections, mono_ns: int) -> None:
        """Compare the unconfirmed detections with those of a later result."""
        if self.settled:
            return
        self._results += 1
        confirmed = np.zeros(len(self.class_ids), bool)
        for class_id in np.unique(self.class_ids):
            of_class = self.class_ids == class_id
            later = found.xyxy_px[found.class_ids == class_id]
            confirmed[of_class] = best_iou(self.xyxy_px[of_class], later) >= MATCH_IOU
        self.missed_classes.update(self.class_ids[confirmed].tolist())
        self.xyxy_px, self.class_ids = self.xyxy_px[~confirmed], self.class_ids[~confirmed]
        is_last = self._results >= CONFIRM_RESULTS or mono_ns - self.mono_ns >= CONFIRM_MS * 1e6
        self.settled = is_last or len(self.class_ids) == 0
        self.flicker = self.settled and not self.missed_classes


class _Epoch:
    """Counts of audited frames, in all and by class."""

    def __init__(self) -> None:
        self.audited = self.missed = self.flicker = 0
        self.audited_by_class: Counter[int] = Counter()
        self.missed_by_class: Counter[int] = Counter()

    def add(self, frame: _AuditedFrame) -> None:
        self.audited += 1
        self.missed += bool(frame.missed_classes)
        self.flicker += frame.flicker
        self.audited_by_class.update(frame.known_classes | frame.missed_classes)
        self.missed_by_class.update(frame.missed_classes)


class _Unnoticed:
    """Objects that were first detected on frames that the gate would have skipped, for UNNOTICED_MS."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._xyxy_px, self._since_ns = np.zeros((0, 4)), np.zeros(0, np.int64)

    def contains(self, xyxy_px: np.ndarray, mono_ns: int) -> np.ndarray:
        """(n,) bool: which of the boxes (n, 4) are objects that are still unnoticed."""
        recent = mono_ns - self._since_ns < UNNOTICED_MS * 1e6
        return best_iou(xyxy_px, self._xyxy_px[recent]) >= MATCH_IOU

    def update(self, xyxy_px: np.ndarray, mono_ns: int) -> None:
        """Replace the objects by those of the newest result; one that was there keeps its time."""
        since_ns = np.full(len(xyxy_px), mono_ns, np.int64)
        if len(xyxy_px) and len(self._xyxy_px):
            iou = iou_matrix(xyxy_px, self._xyxy_px)
            same = iou.max(axis=1) >= MATCH_IOU
            since_ns[same] = self._since_ns[iou.argmax(axis=1)[same]]
        self._xyxy_px, self._since_ns = xyxy_px, since_ns


class _StratifiedSample:
    """Draws one random frame of each block of 1 / share frames: every seed spreads the sample evenly."""

    def __init__(self, generator: random.Random) -> None:
        self._random = generator
        self._frames_left = self._frames_until_draw = 0
        self._fraction = 0.0

    def draw(self, share: float) -> bool:
        """Whether the next frame is in the sample. share: 0..1."""
        if share < _LEAST_SHARE:
            return False
        # A block that is far too long for a share that has grown since is abandoned.
        if self._frames_left == 0 or self._frames_left > 2.0 / share:
            length = 1.0 / share + self._fraction
            self._frames_left, self._fraction = int(length), length % 1.0
            self._frames_until_draw = self._random.randrange(self._frames_left)
        drawn = self._frames_until_draw == 0
        self._frames_until_draw -= 1
        self._frames_left -= 1
        return drawn


class _SkipRate:
    """Skipped frames per second: the recent maximum, which is the camera's rate in quiet times.

    The current rate is lower in busy times. A sample at that rate would contain too many of their frames.
    """

    def __init__(self) -> None:
        self._peak_hz: float | None = None
        self._since_ns: int | None = None
        self._count = 0

    def peak_hz(self, mono_ns: int) -> float:
        """Count a skipped frame and return the maximum rate."""
        if self._since_ns is None:
            self._since_ns = mono_ns
        elapsed_s = (mono_ns - self._since_ns) * 1e-9
        if elapsed_s >= 1.0:
            decayed = (self._peak_hz or 0.0) * 0.5 ** (elapsed_s / PEAK_HALF_LIFE_S)
            self._peak_hz = max(self._count / elapsed_s, decayed)
            self._since_ns, self._count = mono_ns, 0
        self._count += 1
        # The running count covers a camera that has just become faster.
        return max(UNMEASURED_RATE_HZ if self._peak_hz is None else self._peak_hz, float(self._count))


class _PublishedObjects:
    """Boxes published lately, moved with the camera but not by their own speed."""

    def __init__(self) -> None:
        self._xyxy_px = np.zeros((0, 4), np.float64)
        self._published_ns = np.zeros(0, np.int64)

    def add(self, xyxy_px: np.ndarray, mono_ns: int) -> None:
        recent = mono_ns - self._published_ns < PUBLISHED_MS * 1e6
        self._xyxy_px = np.concatenate([self._xyxy_px[recent], xyxy_px])
        self._published_ns = np.concatenate([self._published_ns[recent], np.full(len(xyxy_px), mono_ns)])

    def move(self, camera_motion: np.ndarray) -> None:
        if len(self._xyxy_px):
            self._xyxy_px = transform_boxes(self._xyxy_px, camera_motion)

    def boxes(self, mono_ns: int) -> np.ndarray:
        return self._xyxy_px[mono_ns - self._published_ns < PUBLISHED_MS * 1e6]
