"""Messages of hostile peers, as the middleware delivers them. rclpy is imported when a target is made."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from targets import JsonTarget

from edge_vision.errors import EdgeVisionError, LocalizationError
from edge_vision.localize.placing import CameraView
from edge_vision.localize.transforms import TransformTree

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


class LocalizerInputs(DetectionMessages):
    """Calibration, depth, a transform and boxes: finite places, or a reason."""

    name = "localizer"
    refusals = (ValueError, EdgeVisionError)
    needs = (*ROS, "stereo_msgs")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from edge_vision.nodes.interface import localizer_messages

        self._code = localizer_messages

    def check(self, data: bytes) -> None:
        document, code = _mapping(json.loads(data)), self._code
        camera = code.camera_of(_delivered(self._camera_info(document)), bool(document.get("rectified")))
        depth = code.depth_of(_delivered(self._depth(document)), max_pixels=1e5)
        tree = TransformTree()
        code.add_transforms(tree, [_delivered(self._transform(document))], bool(document.get("static")))
        to_target = tree.lookup("base", "camera", depth.stamp_ns)
        message = _delivered(self.message(data))
        view = CameraView(camera, 30.0, to_target.rotation[2], 0.0, depth)
        placed = 0
        for box_px, detection in zip(code.boxes_of(message), message.detections, strict=True):
            with suppress(LocalizationError):
                place = view.place(box_px)
                one = _delivered(code.detection_3d(detection, place, message.header, to_target))
                position, size = one.bbox.center.position, one.bbox.size
                assert np.isfinite([position.x, position.y, position.z, size.x, size.y, size.z]).all()
                placed += 1
        if not placed:
            raise ValueError("no box has a place")

    def _camera_info(self, document: dict[str, Any]) -> Any:
        info = self._code.CameraInfo(width=_uint(document.get("width")), height=_uint(document.get("height")))
        info.binning_x, info.roi.x_offset = _uint(document.get("binning")), _uint(document.get("offset"))
        info.distortion_model, info.d = (
            _text(document.get("model")),
            [*map(_float, _items(document.get("d")))],
        )
        numbers = [*map(_float, _items(document.get("k"))), *[0.0] * 9][:9]
        info.k, info.p = numbers, np.column_stack((np.reshape(numbers, (3, 3)), np.zeros(3))).ravel()
        return info

    def _depth(self, document: dict[str, Any]) -> Any:
        values = np.array([*map(_float, _items(document.get("depth"))), 0.0], np.float64)
        kind = self._code.DisparityImage if document.get("disparity") else self._code.Image
        message = kind()
        image = message.image if document.get("disparity") else message
        image.encoding = _text(document.get("encoding"))
        dtype = "f4" if image.encoding == "32FC1" else "u2"
        with np.errstate(invalid="ignore", over="ignore"):
            pixels = np.resize(values.astype(dtype), (12, 16))
        image.width, image.height = _uint(document.get("depth_width")), 12
        image.step, image.data = _uint(document.get("step")), pixels.tobytes()
        if document.get("disparity"):
            message.f, message.t = (float(np.clip(_float(document.get(key)), -1e30, 1e30)) for key in "ft")
            message.min_disparity, message.max_disparity = 0.1, 100.0
        _set_header(message.header, document)
        return message

    def _transform(self, document: dict[str, Any]) -> Any:
        message = self._code.TransformStamped(child_frame_id="camera")
        _set_header(message.header, document)
        numbers = [*map(_float, _items(document.get("tf"))), *[0.0] * 7]
        q, t = message.transform.rotation, message.transform.translation
        q.x, q.y, q.z, q.w, t.x, t.y, t.z = numbers[:7]
        return message


def _uint(value: Any) -> int:
    number = _float(value)
    return int(np.clip(number, 0, 2**32 - 1)) if np.isfinite(number) else 0


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
