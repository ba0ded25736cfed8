"""Objects published lately: the audit asks which objects consumers already know."""

from __future__ import annotations

import numpy as np

from edge_vision.core.geometry.homography import transform_boxes

PUBLISHED_MS = 2000.0
"""An object published within this time is no miss: a detector's score flickers."""


class RecentObjects:
    """Boxes published lately, moved with the camera but not by their own speed."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._xyxy_px = np.zeros((0, 4), np.float64)
        self._published_ns = np.zeros(0, np.int64)

    def add(self, xyxy_px: np.ndarray, mono_ns: int) -> None:
        recent = mono_ns - self._published_ns < PUBLISHED_MS * 1e6
        self._xyxy_px = np.concatenate([self._xyxy_px[recent], xyxy_px])
        self._published_ns = np.concatenate([self._published_ns[recent], np.full(len(xyxy_px), mono_ns)])

    def move(self, camera_motion: np.ndarray | None) -> None:
        """Move with the camera. Where its motion is unknown boxes stay, which makes the audit stricter."""
        if camera_motion is not None and len(self._xyxy_px):
            self._xyxy_px = transform_boxes(self._xyxy_px, camera_motion)

    def boxes(self, mono_ns: int) -> np.ndarray:
        """(n, 4) float64 xyxy_px of the boxes published within PUBLISHED_MS."""
        return self._xyxy_px[mono_ns - self._published_ns < PUBLISHED_MS * 1e6]
