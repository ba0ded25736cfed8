"""Boxes as annotations for the Image panel of Foxglove, if `foxglove_msgs` is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_vision.core.detection_overlay import caption, class_color, dashes, label_of, shape_lines
from edge_vision.core.detections import Detections
from edge_vision.nodes.interface.detection_messages import rows_of
from edge_vision.nodes.interface.headers import Headed, header_of

try:
    from foxglove_msgs.msg import Color, ImageAnnotations, Point2, PointsAnnotation, TextAnnotation
except ImportError:
    ImageAnnotations = None


def annotations_message(
    found: Detections, of: Headed, ids: np.ndarray | None, labels: Sequence[str], predicted: bool
) -> Any:
    """Boxes with label, id and score; dashed if predicted. Fields that newer releases added stay empty."""
    stamp, message = header_of(of.stamp_ns, of.frame_id).stamp, ImageAnnotations()
    for (left, top, right, bottom), score, class_id, track in rows_of(found, ids):
        color = _color(class_id)
        points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        if predicted:
            points = dashes(points[[0, 2]].ravel()).reshape(-1, 2)
        text = TextAnnotation(timestamp=stamp, position=Point2(x=left, y=top), background_color=color)
        text.font_size, text.text_color.a = 14.0, 1.0
        text.text = caption(label_of(labels, class_id), score, track)
        message.points.append(_lines(points, color, stamp, closed=not predicted))
        message.texts.append(text)
    for at, points, closed in shape_lines(found):
        message.points.append(_lines(points, _color(int(found.class_ids[at])), stamp, closed))
    if not message.points:  # From which Foxglove takes the stamp.
        message.points.append(PointsAnnotation(timestamp=stamp, type=PointsAnnotation.POINTS))
    return message


def _color(class_id: int) -> Any:
    blue, green, red = (value / 255 for value in class_color(class_id))
    return Color(r=red, g=green, b=blue, a=1.0)


def _lines(points: np.ndarray, color: Any, stamp: Any, closed: bool) -> Any:
    """(k, 2) points as a closed line, or as pairs."""
    lines = PointsAnnotation(timestamp=stamp, outline_color=color, thickness=2.0)
    lines.type = PointsAnnotation.LINE_LOOP if closed else PointsAnnotation.LINE_LIST
    lines.points = [Point2(x=float(x), y=float(y)) for x, y in points.tolist()]
    return lines
