"""Draws detections into an image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from edge_vision.core.detections import Detections

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def class_color(class_id: int) -> tuple[int, int, int]:
    """A fixed bright BGR colour per class. Golden-ratio steps give neighbouring ids distinct hues."""
    hue = int((class_id * 0.618034 % 1.0) * 180)
    b, g, r = cv2.cvtColor(np.array([[[hue, 200, 255]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return b, g, r


def label_of(labels: Sequence[str], class_id: int) -> str:
    """The label of a class, or its number if there is no label."""
    return labels[class_id] if 0 <= class_id < len(labels) else str(class_id)


def draw_detections(image: np.ndarray, found: Detections, labels: Sequence[str]) -> np.ndarray:
    """Draw boxes with labels and scores into a (h, w, 3) uint8 BGR image, in place, and return it."""
    for box, score, class_id in zip(found.xyxy_px, found.scores, found.class_ids, strict=True):
        left, top, right, bottom = (round(float(v)) for v in box)
        color = class_color(int(class_id))
        text = f"{label_of(labels, int(class_id))} {score:.2f}"
        (width, height), _ = cv2.getTextSize(text, _FONT, 0.45, 1)
        cv2.rectangle(image, (left, top), (right, bottom), color, 2)
        left = max(0, min(left, image.shape[1] - width - 4))
        text_top = top - height - 6 if top > height + 6 else top
        cv2.rectangle(image, (left, text_top), (left + width + 4, text_top + height + 6), color, -1)
        cv2.putText(image, text, (left + 2, text_top + height + 2), _FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return image
