"""Times of the images of a video, from the positions that its decoder reports."""

from __future__ import annotations

import math

# A longer step, or a jump back by more than this, is a discontinuity, as between joined recordings.
MAX_STEP_S, MAX_BACKWARD_S = 60.0, 1.0
MIN_INTERVAL_S = 0.001
DEFAULT_FPS_HZ = 30.0


class FrameTimes:
    """Strictly increasing times of images, in s since the first.

    Where a position is missing (0), repeated, earlier than the last, or a discontinuity, the time advances by
    the shortest interval so far.
    """

    def __init__(self, fps_hz: float) -> None:
        """fps_hz: the rate in the container, the first estimate of the shortest interval."""
        self.time_s = 0.0
        self.shortest_interval_s = 1.0 / fps_hz
        self._origin_s: float | None = None

    def advance(self, position_ms: float) -> None:
        """Set time_s to the time of the next image, whose position the decoder reports."""
        position_s = position_ms / 1e3 if math.isfinite(position_ms) else 0.0
        if self._origin_s is None:
            self._origin_s = position_s
            return
        time_s = position_s - self._origin_s
        step_s = time_s - self.time_s
        if 1e-6 < step_s <= MAX_STEP_S:
            self.time_s = time_s
            self.shortest_interval_s = max(MIN_INTERVAL_S, min(self.shortest_interval_s, step_s))
            return
        self.time_s += self.shortest_interval_s
        if position_s and not -MAX_BACKWARD_S <= step_s <= MAX_STEP_S:
            self._origin_s = position_s - self.time_s


def valid_fps(fps_hz: float) -> float:
    """The rate that a file states, or DEFAULT_FPS_HZ if it is implausible."""
    return fps_hz if math.isfinite(fps_hz) and 0.1 <= fps_hz <= 1000.0 else DEFAULT_FPS_HZ
