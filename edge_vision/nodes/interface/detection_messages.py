"""Conversions between detection messages and detections, and the messages that describe a model."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from std_msgs.msg import Header
from vision_msgs.msg import (
    BoundingBox2D,
    BoundingBox2DArray,
    Detection2D,
    Detection2DArray,
    LabelInfo,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
    VisionClass,
    VisionInfo,
)

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import MAX_DETECTIONS
from edge_vision.core.object_shapes import OrientedBoxes
from edge_vision.nodes.interface.headers import Headed, header_of

MAX_MESSAGE_BYTES = 1024 * MAX_DETECTIONS
"""Of a received message; a detection with a frame_id of 30 characters takes 460."""


def detections_message(found: Detections, of: Headed, ids: np.ndarray | None = None) -> Detection2DArray:
    """Detections of a frame, with its header, in its pixels. class_id is the number in label_info.
    ids: (n,) of the tracks, or None."""
    header = header_of(of.stamp_ns, of.frame_id)
    message = Detection2DArray(
        header=header, detections=[_detection(header, *row) for row in rows_of(found, ids)]
    )
    for one, (x, y, width, height, theta) in zip(
        message.detections, oriented_rows(found) or (), strict=False
    ):
        box = one.bbox
        box.center.position.x, box.center.position.y, box.center.theta = x, y, theta
        box.size_x, box.size_y = width, height
    return message


def rows_of(found: Detections, ids: np.ndarray | None) -> Iterator[tuple[list[float], float, int, str]]:
    """xyxy_px, score, class_id and id of each detection; the id is empty if ids is None."""
    names = [""] * len(found) if ids is None else [str(number) for number in ids.tolist()]
    return zip(found.xyxy_px.tolist(), found.scores.tolist(), found.class_ids.tolist(), names, strict=True)


def oriented_rows(found: Detections) -> list[list[float]] | None:
    """Centre x, y, width, height and angle of each detection; None if the boxes are not oriented."""
    return found.shapes.rows.tolist() if isinstance(found.shapes, OrientedBoxes) else None


def _detection(header: Header, xyxy_px: list[float], score: float, class_id: int, track: str) -> Detection2D:
    hypothesis = ObjectHypothesisWithPose(hypothesis=ObjectHypothesis(class_id=str(class_id), score=score))
    return Detection2D(header=header, bbox=_box(xyxy_px), results=[hypothesis], id=track)


def _box(xyxy_px: list[float]) -> BoundingBox2D:
    left, top, right, bottom = xyxy_px
    box = BoundingBox2D(size_x=right - left, size_y=bottom - top)
    box.center.position.x, box.center.position.y = (left + right) / 2, (top + bottom) / 2
    return box


def regions_message(regions: np.ndarray, frame: Frame) -> BoundingBox2DArray:
    """Regions of a frame, (n, 4) xyxy_px, with its header, in its pixels."""
    boxes = [_box(row) for row in regions.tolist()]
    return BoundingBox2DArray(header=header_of(frame.stamp_ns, frame.frame_id), boxes=boxes)


def detections_from_message(message: Detection2DArray) -> Detections:
    """The best hypothesis of each detection, sorted by descending score. Raises ValueError.

    An oriented box becomes the axis-aligned one around it.
    """
    if not message.detections:
        return Detections.empty()
    if len(message.detections) > MAX_DETECTIONS:
        raise ValueError(f"expected at most {MAX_DETECTIONS} detections, got {len(message.detections)}")
    rows, scores, class_ids = [], [], []
    for one in message.detections:
        x, y = one.bbox.center.position.x, one.bbox.center.position.y
        half_w, half_h = one.bbox.size_x / 2, one.bbox.size_y / 2
        if theta := one.bbox.center.theta:
            half_w, half_h = _turned(half_w, half_h, theta)
        best = max((result.hypothesis for result in one.results), key=lambda it: it.score, default=None)
        if best is None or not math.isfinite(best.score):
            raise ValueError("expected a result with a finite score in each detection")
        rows.append((x - half_w, y - half_h, x + half_w, y + half_h))
        scores.append(best.score)
        class_ids.append(_class_id(best.class_id))
    with np.errstate(over="ignore"):  # Of coordinates, which become infinite.
        xyxy_px, score = np.array(rows, np.float32), np.array(scores, np.float32)
    found = Detections(xyxy_px, score, np.array(class_ids, np.int32))
    return found.select(np.argsort(-score, kind="stable"))


def _turned(half_w: float, half_h: float, theta: float) -> tuple[float, float]:
    """Half the sides of the axis-aligned box around a turned one."""
    if not math.isfinite(theta):
        raise ValueError(f"expected a finite bbox.center.theta, got {theta}")
    cos, sin = abs(math.cos(theta)), abs(math.sin(theta))
    return half_w * cos + half_h * sin, half_w * sin + half_h * cos


def _class_id(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ValueError(f"expected a class_id from label_info, a number, got {text!r:.40}")
    return int(text)


def label_info_message(labels: tuple[str, ...], score_threshold: float) -> LabelInfo:
    """The names of the class ids. The header is empty: the message belongs to no image."""
    classes = [VisionClass(class_id=i, class_name=name) for i, name in enumerate(labels)]
    return LabelInfo(class_map=classes, threshold=float(score_threshold))


def vision_info_message(method: str, location: str, version: int) -> VisionInfo:
    """The running model. version: counts the models that this node has loaded."""
    return VisionInfo(method=method, database_location=location, database_version=version)
