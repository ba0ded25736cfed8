"""Known objects on every frame, though what the detector finds comes late.

The detector works on one frame while newer ones are judged and skipped. What it finds belongs to its own
frame: it is put in there, and the frames since are followed anew from it. So each frame keeps the tracks as
they were on it, up to a limit of frames; nothing is computed before it is asked for.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import NO_REGIONS
from edge_vision.tracking.kalman import is_identity
from edge_vision.tracking.tracker import Tracker, TrackerConfig, TrackerState, Tracks

MEMORY = 256
"""Frames that are kept: 8 s at 30 Hz, longer than an inference takes. What is found later has no tracks."""
_ALREADY_THERE = np.eye(3)
LATEST_NS = 2_000_000_000
"""A frame that is older than the newest by more is not late: the stamps have started anew."""


@dataclass(slots=True, eq=False)
class _Moment:
    """One judged frame. state: the tracks on it, None until asked for. known: whether the detector has looked
    since the camera's motion was last unknown. inferred: the detector looked at this very frame.
    doubted: (n, 4) xyxy_px, where known objects look otherwise."""

    stamp_ns: int
    camera_motion: np.ndarray | None
    at_rest: bool
    doubted: np.ndarray
    state: TrackerState | None = None
    known: bool = False
    inferred: bool = False


class TrackingHistory:
    """The tracks of one camera along its judged frames. Any thread may call; each call is short.

    Frames are known by their stamps, and ordered by them: they may be told in any order, and more than once.
    Numbers (seq) only grow, and tell frames from before a reset, which then are ignored, from those after it.
    """

    def __init__(self, config: TrackerConfig | None = None) -> None:
        self._tracker = Tracker(0, 0, config)
        self._size_px = (0, 0)
        self._line: list[_Moment] = []
        self._from_seq = 0
        self._lock = threading.Lock()

    def reset(self, seq: int = 0) -> None:
        """End all tracks, and ignore frames with numbers below seq. Ids are not given again."""
        with self._lock:
            self._line.clear()
            self._tracker.reset()
            self._from_seq = max(self._from_seq, seq)

    def add_frame(
        self,
        stamp_ns: int,
        camera_motion: np.ndarray | None,
        seq: int,
        at_rest: bool = False,
        changed_px: np.ndarray = NO_REGIONS,
    ) -> None:
        """Tell of a frame that the gate judged, whatever becomes of it.

        camera_motion: (3, 3) float64, moves a point of the frame judged before to this one, source pixels;
        None where it is not known. at_rest: the gate saw that nothing moves by itself. doubted: (n, 4)
        xyxy_px, where known objects look otherwise: they are not shown until the detector has looked.
        """
        with self._lock:
            if seq < self._from_seq:
                return
            if self._line and stamp_ns < self._line[-1].stamp_ns - LATEST_NS:
                self._line.clear()
            at = self._place(stamp_ns)
            if self._is_at(at, stamp_ns):
                return
            self._line.insert(at, _Moment(stamp_ns, camera_motion, at_rest, changed_px))
            self._forget_after(at)
            if len(self._line) > MEMORY:
                self._follow(1)
                del self._line[0]

    def tracks_at(self, stamp_ns: int) -> Tracks | None:
        """What is known to be on a judged frame that the detector did not see; None for a frame of which
        nothing was told. Where the camera's motion was unknown and the detector has not looked since, there
        may have been a cut: no object is known. What is doubted is left out."""
        with self._lock:
            at = self._place(stamp_ns)
            if not self._is_at(at, stamp_ns):
                return None
            moment = self._line[at]
            self._follow(at)
            if not moment.known or moment.state is None:
                self._tracker.reset()
            else:
                self._tracker.restore(moment.state)
            return self._tracker.shown()

    def add_detections(self, stamp_ns: int, found: Detections, size_px: tuple[int, int]) -> np.ndarray:
        """Put in what the detector found on a frame of this width and height.

        Returns (n,) int64, the ids of what was found, in its order. Ids that no other frame will have, where
        nothing was told of this frame, or a reset has come since.
        """
        with self._lock:
            at = self._place(stamp_ns)
            if not self._is_at(at, stamp_ns):
                self._tracker.reset()
                return self._tracker.update(found, stamp_ns, None).ids
            if size_px != self._size_px:
                self._take_size(size_px, at)
                at = 0
            moment = self._line[at]
            if moment.inferred or moment.at_rest:  # Told twice, or not as it is: anew from the frame before.
                moment.state, moment.inferred, moment.at_rest = None, False, False
            self._follow(at)
            assert moment.state is not None
            self._tracker.restore(moment.state)
            ids = self._tracker.update(found, stamp_ns, _ALREADY_THERE).ids
            moment.state, moment.known, moment.inferred = self._tracker.state(), True, True
            self._forget_after(at)
            return ids

    def advance_to(self, stamp_ns: int) -> None:
        """Follow the objects to a judged frame now, as `inferred` will have to if nothing else comes."""
        with self._lock:
            at = self._place(stamp_ns)
            if self._is_at(at, stamp_ns):
                self._follow(at)

    def motion_between(self, from_ns: int, to_ns: int) -> np.ndarray | None:
        """(3, 3) float64, moves a point of one judged frame to a later one; None where it is not known."""
        with self._lock:
            at, end = self._place(from_ns), self._place(to_ns)
            if not self._is_at(at, from_ns) or not self._is_at(end, to_ns):
                return None
            motion = np.eye(3)
            for moment in self._line[at + 1 : end + 1]:
                if moment.camera_motion is None:
                    return None
                if not is_identity(moment.camera_motion):
                    motion = moment.camera_motion @ motion
            return motion

    # With the lock held.
    def _place(self, stamp_ns: int) -> int:
        """Where a stamp is in the line, or belongs."""
        line = self._line
        if not line or line[-1].stamp_ns < stamp_ns:
            return len(line)
        return bisect_left(line, stamp_ns, key=lambda moment: moment.stamp_ns)

    def _is_at(self, at: int, stamp_ns: int) -> bool:
        return at < len(self._line) and self._line[at].stamp_ns == stamp_ns

    def _take_size(self, size_px: tuple[int, int], at: int) -> None:
        """Another size of picture: nothing that was before it holds."""
        self._size_px = size_px
        self._tracker.resize(*size_px)
        del self._line[:at]
        self._line[0].state = None

    def _forget_after(self, at: int) -> None:
        """What was followed from this moment must be followed anew, up to where the detector looked."""
        for moment in self._line[at + 1 :]:
            if moment.inferred or moment.state is None:
                return
            moment.state = None

    def _follow(self, at: int) -> None:
        """Have the state of a moment, from the last one before it that has one."""
        start = at
        while start > 0 and self._line[start].state is None:
            start -= 1
        if self._line[start].state is None:
            # Nothing is known from before the line.
            self._tracker.reset()
            self._tracker.move(self._line[start].stamp_ns, None)
            self._line[start].state = self._tracker.state()
        for before, moment in zip(self._line[start:at], self._line[start + 1 : at + 1], strict=True):
            assert before.state is not None
            self._tracker.restore(before.state)
            self._tracker.move(moment.stamp_ns, moment.camera_motion, moment.at_rest)
            self._tracker.doubt(moment.doubted)
            moment.state = self._tracker.state()
            moment.known = before.known and moment.camera_motion is not None
