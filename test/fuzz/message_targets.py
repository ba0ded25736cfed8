"""Messages of hostile peers, as the middleware delivers them. rclpy is imported when a target is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from targets import JsonTarget

ROS = ("rclpy", "vision_msgs")


class FrameEvents(JsonTarget):
    """Frame events: valid numbers and short reasons, or ValueError."""

    name = "frame_events"
    refusals = (ValueError,)
    needs = ROS

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

        from edge_vision.nodes.interface import frame_event_messages

        self._types = DiagnosticArray, DiagnosticStatus, KeyValue
        self._code = frame_event_messages

    def message(self, data: bytes) -> Any:
        """The message that a mutant describes."""
        array, status, pair = self._types
        document = _mapping(json.loads(data))
        message = array(status=[])
        _set_header(message.header, document)
        for one in map(_mapping, _items(document.get("status"))):
            values = [
                pair(key=_text(kv[:1]), value=_text(kv[1:])) for kv in map(_items, _items(one.get("values")))
            ]
            message.status.append(
                status(name=_text(one.get("name")), message=_text(one.get("message")), values=values)
            )
        return message

    def check(self, data: bytes) -> None:
        event = self._code.frame_event_from_message(_delivered(self.message(data)))
        assert np.isfinite(event.regions).all() and event.regions.shape[1:] == (4,)
        assert len(event.reason) <= self._code.MAX_REASON_CHARS
        again = self._code.frame_event_from_message(_delivered(self._code.frame_event_message(event)))
        assert again.stamp_ns == event.stamp_ns and (again.regions == event.regions).all()


class DetectionMessages(JsonTarget):
    """Detections: finite scores and boxes after `valid`, or ValueError."""

    name = "detections"
    refusals = (ValueError,)
    needs = ROS

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesis, ObjectHypothesisWithPose

        from edge_vision.nodes.interface.detection_messages import detections_from_message

        self._types = Detection2DArray, Detection2D, ObjectHypothesisWithPose, ObjectHypothesis
        self._parse = detections_from_message

    def message(self, data: bytes) -> Any:
        """The message that a mutant describes."""
        document = _mapping(json.loads(data))
        message = self._types[0]()
        _set_header(message.header, document)
        message.detections = [self._detection(_mapping(one)) for one in _items(document.get("detections"))]
        return message

    def check(self, data: bytes) -> None:
        message = self.message(data)
        found = self._parse(_delivered(message)).valid()
        assert np.isfinite(found.xyxy_px).all() and not np.isnan(found.scores).any()
        assert len(found.scores) == len(found.class_ids) <= len(message.detections)

    def _detection(self, one: dict[str, Any]) -> Any:
        _, detection, result, hypothesis = self._types
        made = detection(id=_text(one.get("id")))
        x, y, made.bbox.size_x, made.bbox.size_y = ([*map(_float, _items(one.get("box"))), *[0.0] * 4])[:4]
        made.bbox.center.position.x, made.bbox.center.position.y = x, y
        for each in map(_items, _items(one.get("results"))):
            made.results.append(
                result(hypothesis=hypothesis(class_id=_text(each[:1]), score=_float([*each, 0.0][-1])))
            )
        return made


def _delivered(message: Any) -> Any:
    """The message after the middleware serialized and deserialized it."""
    from rclpy.serialization import deserialize_message, serialize_message

    return deserialize_message(serialize_message(message), type(message))


def _set_header(header: Any, document: dict[str, Any]) -> None:
    """A peer can send any value of a field's type, and no other."""
    header.frame_id = _text(document.get("frame_id"))
    header.stamp.sec = int(np.clip(_float(document.get("sec")), -(2**31), 2**31 - 1))
    header.stamp.nanosec = int(np.clip(_float(document.get("nanosec")), 0, 2**32 - 1))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    """A string without NUL, which ends a string in C. Of a list: its first item."""
    value = (value or [""])[0] if isinstance(value, list) else value
    return (value if isinstance(value, str) else json.dumps(value)).replace("\0", "")


def _float(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return number
