"""The small mark that every frame leaves on its way, seen or skipped."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edge_vision.core.geometry.boxes import NO_REGIONS


class FrameEvent(NamedTuple):
    """What one stage decided on one frame.

    stamp_ns, frame_id: the frame's header. fate: how the frame ended, one of `ledger.FATES`, or "" where
    it goes on. regions: (n, 4) float32 xyxy_px, where to look. seq: the frame's, within one process.
    camera_motion: (3, 3) float64, where a point of the frame that the gate judged before lies in this one,
    source pixels; None = not known. To follow a point over skipped frames, multiply the motions of all frames
    that the gate judged; one that it did not (superseded or failed there) has no part in it.
    """

    stamp_ns: int
    frame_id: str
    stage: str
    fate: str
    reason: str
    regions: np.ndarray = NO_REGIONS
    seq: int = 0
    camera_motion: np.ndarray | None = None
