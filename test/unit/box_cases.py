"""Detections from boxes that a test writes down."""

from __future__ import annotations

import numpy as np

from edge_vision.core.detections import Detections

Box = tuple[float, float, float, float]


def boxes(*xyxy: Box, class_id: int = 0, score: float = 0.9) -> Detections:
    """Detections of one class at these (x0, y0, x1, y1) in px."""
    n = len(xyxy)
    array = np.array(xyxy, np.float32).reshape(n, 4)
    return Detections(array, np.full(n, score, np.float32), np.full(n, class_id, np.int32))
