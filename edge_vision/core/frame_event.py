"""Per-frame record of what each stage decided."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edge_vision.core.geometry.boxes import NO_REGIONS


class FrameEvent(NamedTuple):
    """Decision of one stage on one frame.

    stamp_ns, frame_id: the frame's header. fate: one of `ledger.FATES`, or "" if the frame continues to the
    next stage. regions: (n, 4) float32 xyxy_px, regions of interest. seq: the frame's, within one process.
    camera_motion: (3, 3) float64, maps a point of the frame that the gate analysed before to this one, source
    pixels; None if unknown. Frames that the gate did not analyse (superseded or failed there) have no motion
    of their own: skip them when chaining motions.
    """

    stamp_ns: int
    frame_id: str
    stage: str
    fate: str
    reason: str
    regions: np.ndarray = NO_REGIONS
    seq: int = 0
    camera_motion: np.ndarray | None = None
