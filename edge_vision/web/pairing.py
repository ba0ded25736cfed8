"""Joins an image with the tracks of its own stamp, and records what became of each frame. Imports no ROS.

Topics have no order among each other: the tracks of a skipped frame may arrive before its image, those of an
inferred one come after the inference. An image is held until then.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import NamedTuple

MAX_MOMENTS = 256
MAX_HELD, MAX_HELD_BYTES = 16, 64_000_000
"""Images that wait for their tracks: the older ones go first, the newest stays."""
HOLD_S = 1.5
"""Longest wait of an image. If no tracks at all arrive meanwhile, images are shown without boxes."""
INFERENCE_S = 0.1
"""Longest wait for a frame that is being inferred, before a newer one with predicted boxes is shown: where an
inference takes longer than the camera's period, only predicted boxes would be seen."""
JUMP_NS = 1_000_000_000
"""Stamps that go back by this much start again, as when a file is repeated."""
MAX_RECORDS = 512
SKIPS = ("gated", "rejected")
NO_RESULT = "no result"
"""Of a frame that was to be inferred: superseded or failed at the detector, which the ledger counts."""


class FrameRecord(NamedTuple):
    """What became of a frame. outcome: inferred, gated, rejected, superseded, failed or NO_RESULT. age_ms: of
    its detections on arrival, None without."""

    stamp_ns: int
    outcome: str
    reason: str
    age_ms: float | None


@dataclass(slots=True)
class Shown:
    """A frame to show. image, tracks: serialized messages; tracks None = none arrive. kind: inferred,
    predicted, or "" without tracks."""

    stamp_ns: int
    image: bytes
    tracks: bytes | None
    kind: str
    reason: str


@dataclass(slots=True)
class _Moment:
    arrived_s: float
    image: bytes | None = None
    tracks: bytes | None = None
    outcome: str = ""
    reason: str = ""

    @property
    def kind(self) -> str:
        return "inferred" if self.outcome == "inferred" else "predicted" if self.outcome in SKIPS else ""

    @property
    def complete(self) -> bool:
        return self.image is not None and self.tracks is not None and bool(self.kind)


class FramePairing:
    """The frames of one camera. One thread. Times are monotonic, in s.

    period_s: shortest time between two shown frames.
    """

    def __init__(self, period_s: float, now_s: float) -> None:
        self._period_s, self._due_s = period_s, now_s
        self._moments: OrderedDict[int, _Moment] = OrderedDict()
        self._records: deque[FrameRecord] = deque(maxlen=MAX_RECORDS)
        self._tracks_s, self._without_tracks = now_s, False
        self._shown_ns = self._newest_ns = -1

    def add_image(self, stamp_ns: int, image: bytes, now_s: float) -> None:
        if stamp_ns < self._newest_ns - JUMP_NS:
            self._moments.clear()
            self._shown_ns = -1
        self._newest_ns = stamp_ns
        self._moment(stamp_ns, now_s).image = image
        held = [one for one in self._moments.values() if one.image is not None]
        size = sum(len(one.image or b"") for one in held)
        for one in held[:-1]:
            if len(held) <= MAX_HELD and size <= MAX_HELD_BYTES:
                break
            size -= len(one.image or b"")
            held, one.image = held[1:], None

    def add_tracks(self, stamp_ns: int, tracks: bytes, now_s: float) -> None:
        self._tracks_s, self._without_tracks = now_s, False
        self._moment(stamp_ns, now_s).tracks = tracks

    def add_event(self, stamp_ns: int, fate: str, reason: str, now_s: float) -> None:
        """A stage's decision. fate: "" = the frame continues to the next stage."""
        moment = self._moment(stamp_ns, now_s)
        if moment.outcome:
            return
        moment.reason = reason
        if fate:
            self._settle(stamp_ns, moment, fate)

    def add_detections(self, stamp_ns: int, age_ms: float | None, now_s: float) -> None:
        moment = self._moment(stamp_ns, now_s)
        if moment.outcome != "inferred":
            self._settle(stamp_ns, moment, "inferred", age_ms)

    def take(self, now_s: float) -> Shown | None:
        """The newest frame with its tracks, or an inferred one that newer ones have waited for, if one is
        due. Call it after each message."""
        if now_s < self._due_s:
            return None
        newer = [
            (stamp_ns, one)
            for stamp_ns, one in sorted(self._moments.items(), reverse=True)
            if stamp_ns > self._shown_ns and one.image is not None
        ]
        ready = [one for one in newer if one[1].complete or self._without_tracks]
        if not ready:
            return None
        young = [one for one in newer if one[0] < ready[0][0] and now_s - one[1].arrived_s < INFERENCE_S]
        inferred = [one for one in young if one[1].complete and one[1].kind == "inferred"]
        if not inferred and any(one.reason and not one.outcome for _, one in young):
            return None
        # Not `now + period`: a camera of the same rate would lose every other frame.
        self._due_s = max(self._due_s + self._period_s, now_s)
        return self._show(*(inferred or ready)[0])

    def take_records(self, now_s: float) -> list[FrameRecord]:
        """What became of frames since the last call. Ends the wait for frames without a result."""
        for stamp_ns, moment in self._moments.items():
            if now_s - moment.arrived_s > HOLD_S:
                if moment.image is not None and moment.tracks is None:
                    self._without_tracks |= self._tracks_s <= moment.arrived_s
                moment.image = None
                if not moment.outcome and moment.reason:
                    self._settle(stamp_ns, moment, NO_RESULT)
        records = list(self._records)
        self._records.clear()
        return records

    def _show(self, stamp_ns: int, moment: _Moment) -> Shown:
        assert moment.image is not None
        tracks = moment.tracks if moment.complete else None
        shown = Shown(stamp_ns, moment.image, tracks, moment.kind if tracks else "", moment.reason)
        self._shown_ns = stamp_ns
        for older_ns, older in self._moments.items():
            if older_ns <= stamp_ns:
                older.image = None
        return shown

    def _settle(self, stamp_ns: int, moment: _Moment, outcome: str, age_ms: float | None = None) -> None:
        moment.outcome = outcome
        if outcome not in ("inferred", *SKIPS):
            moment.image = None
        self._records.append(FrameRecord(stamp_ns, outcome, moment.reason, age_ms))

    def _moment(self, stamp_ns: int, now_s: float) -> _Moment:
        if stamp_ns not in self._moments:
            self._moments[stamp_ns] = _Moment(now_s)
            if len(self._moments) > MAX_MOMENTS:
                self._moments.popitem(last=False)
        return self._moments[stamp_ns]
