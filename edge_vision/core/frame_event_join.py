"""Brings the ticks and the images of one transport together again, and tells what was lost on the way.

Ticks are sent reliably and before their images; images may be lost, but those that arrive arrive in order.
So a tick whose image has not come when a later one's has is lost, and so is one that waited too long.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from edge_vision.core.frame_event import FrameEvent

Key = tuple[int, str]


@dataclass(frozen=True, slots=True)
class JoinedFrame:
    """What an image's arrival means. seq: its account, None where it has none yet. lost: accounts whose
    images will not come."""

    seq: int | None
    event: FrameEvent | None
    lost: tuple[int, ...]


class FrameEventJoin:
    """Pure: accounts are numbers given by the caller, time is an argument. One caller at a time."""

    def __init__(self, timeout_ns: int = 1_000_000_000, memory: int = 64) -> None:
        self._timeout_ns = timeout_ns
        self._waiting: OrderedDict[Key, tuple[int, FrameEvent, int]] = OrderedDict()
        self._seen_early: deque[Key] = deque(maxlen=memory)

    def add_event(self, tick: FrameEvent, seq: int, mono_ns: int) -> bool:
        """Note that an image is on its way, under the account seq.

        False where the image came first and has an account already: open none.
        """
        key = (tick.stamp_ns, tick.frame_id)
        if key in self._seen_early:
            self._seen_early.remove(key)
            return False
        if key in self._waiting:
            return False
        self._waiting[key] = (seq, tick, mono_ns)
        return True

    def add_image(self, stamp_ns: int, frame_id: str) -> JoinedFrame:
        """Take the tick of an image that arrived, and give up on those before it."""
        key = (stamp_ns, frame_id)
        if key not in self._waiting:
            self._seen_early.append(key)
            return JoinedFrame(None, None, ())
        lost: list[int] = []
        while True:
            first, (seq, tick, _) = self._waiting.popitem(last=False)
            if first == key:
                return JoinedFrame(seq, tick, tuple(lost))
            lost.append(seq)

    def expire(self, mono_ns: int) -> list[int]:
        """Accounts whose images have been missing for too long."""
        lost = []
        while self._waiting:
            key, (seq, _, since_ns) = next(iter(self._waiting.items()))
            if mono_ns - since_ns < self._timeout_ns:
                break
            del self._waiting[key]
            lost.append(seq)
        return lost

    def close(self) -> list[int]:
        """All accounts that still wait; afterwards none do."""
        left = [seq for seq, _, _ in self._waiting.values()]
        self._waiting.clear()
        return left
