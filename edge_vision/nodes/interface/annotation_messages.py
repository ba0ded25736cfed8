"""Boxes as annotations for the Image panel of Foxglove, if `foxglove_msgs` is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_vision.core.detection_overlay import caption, class_color, dashes, label_of
from edge_vision.core.detections import Detections
from edge_vision.nodes.interface.detection_messages import rows_of
from edge_vision.nodes.interface.headers import Headed, header_of

try:
    from foxglove_msgs.msg import Color, ImageAnnotations, Point2, PointsAnnotation, TextAnnotation
except ImportError:
    ImageAnnotations = None

FONT_PX = 14.0


def annotations_message(
    found: Detections, of: Headed, ids: np.ndarray | None, labels: Sequence[str], predicted: bool
) -> Any:
    """Boxes with label, id and score; dashed if predicted. Fields that newer releases added stay empty."""
    stamp, message = header_of(of.stamp_ns, of.frame_id).stamp, ImageAnnotations()
    for (left, top, right, bottom), score, class_id, track in rows_of(found, ids):
        blue, green, red = (value / 255 for value in class_color(class_id))
        color = Color(r=red, g=green, b=blue, a=1.0)
        points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        if predicted:
            points = dashes(points[[0, 2]].ravel()).reshape(-1, 2)
        box = PointsAnnotation(timestamp=stamp, outline_color=color, thickness=2.0)
        box.type = PointsAnnotation.LINE_LIST if predicted else PointsAnnotation.LINE_LOOP
        box.points = [Point2(x=float(x), y=float(y)) for x, y in points.tolist()]
        text = TextAnnotation(timestamp=stamp, font_size=FONT_PX, background_color=color)
        text.position, text.text_color.a = Point2(x=left, y=top), 1.0
        text.text = caption(label_of(labels, class_id), score, track)
        message.points.append(box)
        message.texts.append(text)
    return message
