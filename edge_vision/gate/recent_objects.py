"""Where consumers were told of objects lately, for the gate: its audit asks what they knew."""

from __future__ import annotations

import numpy as np

from edge_vision.core.geometry.homography import transform_boxes

TOLD_MS = 2000.0
"""An object that was told of within this time is no miss for the audit: a detector's score flickers."""
TRACKED_MS = 300.0
"""Motion within an object found so lately is that object's; some results late, and one that missed it."""


class RecentObjects:
    """Boxes that consumers were told of lately, where they would be now had they not moved themselves."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._xyxy_px = np.zeros((0, 4), np.float64)
        self._told_ns = np.zeros(0, np.int64)

    def add(self, xyxy_px: np.ndarray, mono_ns: int) -> None:
        recent = mono_ns - self._told_ns < TOLD_MS * 1e6
        self._xyxy_px = np.concatenate([self._xyxy_px[recent], xyxy_px])
        self._told_ns = np.concatenate([self._told_ns[recent], np.full(len(xyxy_px), mono_ns)])

    def move(self, camera_motion: np.ndarray | None) -> None:
        """Move with the camera; where its motion is unknown they stay, and the audit judges more strictly."""
        if camera_motion is not None and len(self._xyxy_px):
            self._xyxy_px = transform_boxes(self._xyxy_px, camera_motion)

    def boxes(self, mono_ns: int, within_ms: float) -> np.ndarray:
        """(n, 4) float64 xyxy_px of what was told of within this time."""
        return self._xyxy_px[mono_ns - self._told_ns < within_ms * 1e6]
