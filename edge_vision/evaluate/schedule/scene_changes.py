"""Cuts and quiet stretches of a clip, from an 80x45 luma difference that is independent of the gate."""

from __future__ import annotations

from collections import deque
from statistics import median

import cv2
import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame

SIZE_PX = (80, 45)
MIN_CUT_GREY = 22.0
CUT_RATIO = 2.5
"""A cut: the mean change exceeds MIN_CUT_GREY, and so many times the median of the last RECENT frames."""
RECENT = 8
QUIET_GREY, QUIET_CELLS = 6, 2
"""The picture is unchanged while at most so many of the 3600 cells differ by more than QUIET_GREY."""
MIN_QUIET_S = 1.0


class SceneChanges:
    """Observes the frames of a clip in order.

    cuts: the first frame of each new scene. quiet_frames: the frames of stretches of MIN_QUIET_S or longer on
    which nothing differs from the first frame of the stretch, without that one.
    """

    def __init__(self) -> None:
        self.cuts: list[int] = []
        self.quiet_frames: list[int] = []
        self._before = self._anchor = np.zeros(0, np.int16)
        self._stretch: list[int] = []
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._n = self._anchor_ns = self._last_ns = 0

    def process(self, frame: Frame, *_: Detections) -> None:
        """Compare a frame with the one before, and with the start of the stretch."""
        small = cv2.resize(frame.gray(), SIZE_PX, interpolation=cv2.INTER_AREA).astype(np.int16)
        if self._n:
            change = float(np.abs(small - self._before).mean())
            if change > MIN_CUT_GREY and change > CUT_RATIO * median(self._recent or [0.0]):
                self.cuts.append(self._n)
            self._recent.append(change)
        self._extend_stretch(small, frame.stamp_ns)
        self._before = small
        self._n += 1

    def _extend_stretch(self, small: np.ndarray, stamp_ns: int) -> None:
        if self._n and np.count_nonzero(np.abs(small - self._anchor) > QUIET_GREY) <= QUIET_CELLS:
            self._stretch.append(self._n)
            before_ns = (self._last_ns - self._anchor_ns) * 1e-9
            if (stamp_ns - self._anchor_ns) * 1e-9 >= MIN_QUIET_S:
                # The first frames of a stretch count as soon as it is long enough.
                self.quiet_frames += self._stretch if before_ns < MIN_QUIET_S else [self._n]
        else:
            self._stretch, self._anchor, self._anchor_ns = [], small, stamp_ns
        self._last_ns = stamp_ns
