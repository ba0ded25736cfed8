"""Tracks on every frame, although detections arrive late.

While the detector infers one frame, the gate analyses and skips newer ones. Its detections are applied to
their own frame, and the frames since are predicted again from there. Each frame therefore keeps the tracker's
state, up to a limit of frames. States are computed on demand.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.tracking.kalman import is_identity
from edge_vision.tracking.tracker import EMPTY_TRACKS, Tracker, TrackerState, Tracks

MAX_FRAMES = 256
"""8 s at 30 Hz, longer than an inference takes. Detections on an older frame get no tracks."""
_NO_MOTION = np.eye(3)
MAX_LATENESS_NS = 2_000_000_000
"""A frame that is older than the newest one by more than this is not late: the clock was reset."""


@dataclass(slots=True, eq=False)
class _HistoryFrame:
    """A frame and the tracker's state on it.

    state: None until computed. known: whether there was an inference since the camera's motion was last
    unknown. inferred: whether this frame has detections.
    """

    stamp_ns: int
    camera_motion: np.ndarray | None
    static: bool
    state: TrackerState | None = None
    known: bool = False
    inferred: bool = False


class TrackingHistory:
    """Tracks of one camera on all frames that the gate analysed. Thread-safe; each call is short.

    Frames are identified and ordered by their stamps; they may be added in any order, and repeatedly.
    Sequence numbers only grow: frames with a number from before a `reset` are ignored.
    """

    def __init__(self) -> None:
        self._tracker = Tracker(0, 0)
        self._size_px = (0, 0)
        self._frames: list[_HistoryFrame] = []
        self._from_seq = 0
        self._shown: tuple[TrackerState | None, Tracks] = None, EMPTY_TRACKS
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._frames)

    def reset(self, seq: int = 0) -> None:
        """End all tracks, and ignore frames with numbers below seq. Track ids are not reused."""
        with self._lock:
            self._frames.clear()
            self._tracker.reset()
            self._from_seq = max(self._from_seq, seq)

    def add_frame(
        self, stamp_ns: int, camera_motion: np.ndarray | None, seq: int, static: bool = False
    ) -> None:
        """Add a frame that the gate analysed, inferred or not.

        camera_motion: (3, 3) float64, maps a point of the frame analysed before to this one, source pixels;
        None if unknown. static: nothing moves except the camera.
        """
        with self._lock:
            if seq < self._from_seq:
                return
            if self._frames and stamp_ns < self._frames[-1].stamp_ns - MAX_LATENESS_NS:
                self._frames.clear()
            at = self._index(stamp_ns)
            if self._is_at(at, stamp_ns):
                return
            self._frames.insert(at, _HistoryFrame(stamp_ns, camera_motion, static))
            self._invalidate_after(at)
            if len(self._frames) > MAX_FRAMES:
                self._compute_state(1)
                del self._frames[0]

    def tracks_at(self, stamp_ns: int) -> Tracks | None:
        """Tracks predicted for a frame without inference; None if the frame was not added.

        Empty if the camera's motion was unknown since the last inference, because there may have been a cut.
        """
        with self._lock:
            at = self._index(stamp_ns)
            if not self._is_at(at, stamp_ns):
                return None
            frame = self._frames[at]
            self._compute_state(at)
            if not frame.known or frame.state is None:
                return EMPTY_TRACKS
            if self._shown[0] is not frame.state:
                self._tracker.restore(frame.state)
                self._shown = frame.state, self._tracker.visible_tracks()
            return self._shown[1]

    def add_detections(self, stamp_ns: int, found: Detections, size_px: tuple[int, int]) -> np.ndarray:
        """Apply the detections of a frame of this width and height.

        Returns (n,) int64, the track id of each detection. If the frame was not added, or was removed by a
        `reset`, the ids are new and unique.
        """
        with self._lock:
            at = self._index(stamp_ns)
            if not self._is_at(at, stamp_ns):
                self._tracker.reset()
                return self._tracker.update(found, stamp_ns, None).ids
            if size_px != self._size_px:
                self._resize(size_px, at)
                at = 0
            frame = self._frames[at]
            if frame.inferred or frame.static:
                # A second result, or objects that move after all: predict again from the frame before.
                frame.state, frame.inferred, frame.static = None, False, False
            self._compute_state(at)
            assert frame.state is not None
            self._tracker.restore(frame.state)
            ids = self._tracker.update(found, stamp_ns, _NO_MOTION).ids
            frame.state, frame.known, frame.inferred = self._tracker.state(), True, True
            self._invalidate_after(at)
            return ids

    def motion_between(self, from_ns: int, to_ns: int) -> np.ndarray | None:
        """(3, 3) float64, maps a point of one frame to a later one; None if unknown."""
        with self._lock:
            at, end = self._index(from_ns), self._index(to_ns)
            if not self._is_at(at, from_ns) or not self._is_at(end, to_ns):
                return None
            motion = np.eye(3)
            for frame in self._frames[at + 1 : end + 1]:
                if frame.camera_motion is None:
                    return None
                if not is_identity(frame.camera_motion):
                    motion = frame.camera_motion @ motion
            return motion

    # The methods below require the lock.
    def _index(self, stamp_ns: int) -> int:
        """Index of a stamp's frame, or where it would be inserted."""
        frames = self._frames
        if not frames or frames[-1].stamp_ns < stamp_ns:
            return len(frames)
        return bisect_left(frames, stamp_ns, key=lambda frame: frame.stamp_ns)

    def _is_at(self, at: int, stamp_ns: int) -> bool:
        return at < len(self._frames) and self._frames[at].stamp_ns == stamp_ns

    def _resize(self, size_px: tuple[int, int], at: int) -> None:
        """Continue with another image size: all tracks end, and the frames before `at` are removed."""
        self._size_px = size_px
        self._tracker.resize(*size_px)
        del self._frames[:at]
        self._frames[0].state = None

    def _invalidate_after(self, at: int) -> None:
        """Discard the states predicted from frame `at`, up to the next inference."""
        for frame in self._frames[at + 1 :]:
            if frame.inferred or frame.state is None:
                return
            frame.state = None

    def _compute_state(self, at: int) -> None:
        """Predict frame `at` from the last frame before it that has a state."""
        start = at
        while start > 0 and self._frames[start].state is None:
            start -= 1
        if self._frames[start].state is None:
            self._tracker.reset()
            self._tracker.advance(self._frames[start].stamp_ns, None)
            self._frames[start].state = self._tracker.state()
        for before, frame in zip(self._frames[start:at], self._frames[start + 1 : at + 1], strict=True):
            assert before.state is not None
            self._tracker.restore(before.state)
            self._tracker.advance(frame.stamp_ns, frame.camera_motion, frame.static)
            frame.state = self._tracker.state()
            frame.known = before.known and frame.camera_motion is not None
