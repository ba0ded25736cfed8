"""Per-frame record of what each stage decided, and its join with the image.

Events are sent reliably and before their images. Images may be lost, but arrive in order. An image is
therefore lost if a later one arrives first, or after a timeout.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edge_vision.core.frame import Frame
from edge_vision.core.geometry.boxes import NO_REGIONS


class FrameEvent(NamedTuple):
    """Decision of one stage on one frame.

    stamp_ns, frame_id: the frame's header. fate: one of `ledger.FATES`, or "" if the frame continues to the
    next stage. regions: (n, 4) float32 xyxy_px, regions of interest. seq: the frame's, within one process.
    camera_motion: (3, 3) float64, maps a point of the frame that the gate analysed before to this one, source
    pixels; None if unknown. Frames that the gate did not analyse (superseded or failed there) have no motion
    of their own: skip them when chaining motions. frame: within one process, to show its boxes.
    """

    stamp_ns: int
    frame_id: str
    stage: str
    fate: str
    reason: str
    regions: np.ndarray = NO_REGIONS
    seq: int = 0
    camera_motion: np.ndarray | None = None
    frame: Frame | None = None


Key = tuple[int, str]
MAX_WAITING = 1024
"""Further events are ignored; their images count as images without an event."""


@dataclass(frozen=True, slots=True)
class JoinedFrame:
    """Result of an image's arrival. seq: its sequence number, None if its event has not arrived. lost:
    sequence numbers of lost images."""

    seq: int | None
    event: FrameEvent | None
    lost: tuple[int, ...]


class FrameEventJoin:
    """One caller at a time, which provides the sequence numbers and the time."""

    def __init__(self, timeout_ns: int = 1_000_000_000, memory: int = 64) -> None:
        self._timeout_ns = timeout_ns
        self._waiting: OrderedDict[Key, tuple[int, FrameEvent, int]] = OrderedDict()
        self._early_images: deque[Key] = deque(maxlen=memory)

    def add_event(self, event: FrameEvent, seq: int, mono_ns: int) -> bool:
        """Expect the image of an event, under a sequence number. False if the image has already arrived, or
        too many are expected."""
        key = (event.stamp_ns, event.frame_id)
        if key in self._early_images:
            self._early_images.remove(key)
            return False
        if key in self._waiting or len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting[key] = (seq, event, mono_ns)
        return True

    def add_image(self, stamp_ns: int, frame_id: str) -> JoinedFrame:
        """Match an image with its event. The images of earlier events are lost."""
        key = (stamp_ns, frame_id)
        if key not in self._waiting:
            self._early_images.append(key)
            return JoinedFrame(None, None, ())
        lost: list[int] = []
        while True:
            first, (seq, event, _) = self._waiting.popitem(last=False)
            if first == key:
                return JoinedFrame(seq, event, tuple(lost))
            lost.append(seq)

    def expire(self, mono_ns: int) -> list[int]:
        """Sequence numbers of images that did not arrive in time."""
        lost = []
        while self._waiting:
            key, (seq, _, since_ns) = next(iter(self._waiting.items()))
            if mono_ns - since_ns < self._timeout_ns:
                break
            del self._waiting[key]
            lost.append(seq)
        return lost

    def close(self) -> list[int]:
        """Stop waiting: sequence numbers of all missing images."""
        left = [seq for seq, _, _ in self._waiting.values()]
        self._waiting.clear()
        return left
