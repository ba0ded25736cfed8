"""Between ROS messages and the core's types. The only place where messages are read or built (those of IMU,
odometry and calibration are read in `ego.py`).

Copies are made only where a message must own its bytes.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import CompressedImage, Image
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

from edge_vision.core.compressed import compressed_frame
from edge_vision.core.detections import Detections
from edge_vision.core.frame import ENCODINGS, MAX_PIXELS, Frame, check_size, view_image
from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.ledger import FATES
from edge_vision.core.printable import printable
from edge_vision.core.redaction import redact_text
from edge_vision.errors import ImageError

NS_PER_S = 1_000_000_000


def stamp_to_ns(stamp: Time) -> int:
    """A stamp as nanoseconds. Raises ImageError(bad_stamp) where it could not be given back bit-exact."""
    if stamp.nanosec >= NS_PER_S:
        raise ImageError("bad_stamp", f"expected nanosec below 1e9 in the stamp, got {stamp.nanosec}")
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def header_of(stamp_ns: int, frame_id: str) -> Header:
    """The header that the stamp and frame_id came in."""
    sec, nanosec = divmod(stamp_ns, NS_PER_S)
    return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame_id)


def frame_from_message(message: Image | CompressedImage, seq: int, max_pixels: float = MAX_PIXELS) -> Frame:
    """The frame of an image message, as a view of its bytes. Raises ImageError with the reason.

    A compressed image is decoded when its pixels are first read, which may then raise
    ImageError(corrupt_image).
    """
    stamp_ns = stamp_to_ns(message.header.stamp)
    frame_id = message.header.frame_id
    if isinstance(message, CompressedImage):
        return compressed_frame(message.data, message.format, stamp_ns, frame_id, seq, message, max_pixels)
    if message.encoding in ENCODINGS:
        encoding = message.encoding
        size = message.width, message.height, message.step
        image = view_image(message.data, *size, encoding, bool(message.is_bigendian), max_pixels)
    else:
        check_size(message.width, message.height, max_pixels)
        image, encoding = _with_cv_bridge(message), "bgr8"
    return Frame(image, stamp_ns, frame_id, encoding, seq, message)


def _with_cv_bridge(message: Image) -> np.ndarray:
    """(h, w, 3) uint8 BGR of a rare encoding, by the system's cv_bridge where there is one."""
    try:
        from cv_bridge import CvBridge

        return CvBridge().imgmsg_to_cv2(message, "bgr8")
    except ImportError:
        reason = "and the system has no cv_bridge for others"
    except Exception as error:  # cv_bridge and its C++ part raise many kinds, all of them about this image.
        reason = f"and cv_bridge cannot convert it: {error}"
    raise ImageError(
        "unsupported_encoding",
        f"encoding '{message.encoding}' is not read here, {reason}. Publish one of {', '.join(ENCODINGS)}",
    )


class ImageWriter:
    """Turns frames into Image messages, reusing one message: publish it before the next call."""

    def __init__(self) -> None:
        self._message = Image()
        self._bytes = np.zeros(0, np.uint8)

    def message(self, frame: Frame) -> Image:
        """The frame's own message where it came in one, else the reused one, filled."""
        if isinstance(frame.origin, Image):
            return frame.origin
        image = frame.image
        self._reserve(image.nbytes)
        np.copyto(self._bytes.view(image.dtype).reshape(image.shape), image)
        message = self._message
        message.header = header_of(frame.stamp_ns, frame.frame_id)
        message.height, message.width = frame.height_px, frame.width_px
        message.encoding = frame.encoding
        message.step = image.nbytes // image.shape[0]
        message.is_bigendian = 0
        return message

    def _reserve(self, nbytes: int) -> None:
        """Have the message own nbytes. Only an array('B') goes in without a check of every byte."""
        if self._bytes.nbytes != nbytes:
            self._message.data = array("B", bytes(nbytes))
            # Some releases of rclpy take the array as it is, others a copy: write where the message reads.
            self._bytes = np.frombuffer(self._message.data, np.uint8)


class Headed(Protocol):
    """What has a header: a frame, or the tick of one."""

    @property
    def stamp_ns(self) -> int: ...

    @property
    def frame_id(self) -> str: ...


def detections_message(found: Detections, of: Headed, ids: np.ndarray | None = None) -> Detection2DArray:
    """Detections of a frame, in its pixels, under its header. class_id is the number of label_info.
    ids: (n,) of the tracks, None where there are none."""
    header = header_of(of.stamp_ns, of.frame_id)
    return Detection2DArray(
        header=header, detections=[_detection(header, *row) for row in rows_of(found, ids)]
    )


def rows_of(found: Detections, ids: np.ndarray | None) -> Iterator[tuple[list[float], float, int, str]]:
    """xyxy_px, score, class_id and id of each detection; the id is empty where ids is None."""
    names = [""] * len(found) if ids is None else [str(number) for number in ids.tolist()]
    return zip(found.xyxy_px.tolist(), found.scores.tolist(), found.class_ids.tolist(), names, strict=True)


def _detection(header: Header, xyxy_px: list[float], score: float, class_id: int, track: str) -> Detection2D:
    hypothesis = ObjectHypothesisWithPose(hypothesis=ObjectHypothesis(class_id=str(class_id), score=score))
    return Detection2D(header=header, bbox=_box(xyxy_px), results=[hypothesis], id=track)


def _box(xyxy_px: list[float]) -> BoundingBox2D:
    left, top, right, bottom = xyxy_px
    box = BoundingBox2D(size_x=right - left, size_y=bottom - top)
    box.center.position.x, box.center.position.y = (left + right) / 2, (top + bottom) / 2
    return box


def regions_message(regions: np.ndarray, frame: Frame) -> BoundingBox2DArray:
    """Regions of a frame, (n, 4) xyxy_px, in its pixels, under its header."""
    boxes = [_box(row) for row in regions.tolist()]
    return BoundingBox2DArray(header=header_of(frame.stamp_ns, frame.frame_id), boxes=boxes)


def detections_from_message(message: Detection2DArray) -> Detections:
    """The inverse of `detections_message`: the best hypothesis of each detection."""
    if not message.detections:
        return Detections.empty()
    rows, scores, class_ids = [], [], []
    for one in message.detections:
        x, y = one.bbox.center.position.x, one.bbox.center.position.y
        half_w, half_h = one.bbox.size_x / 2, one.bbox.size_y / 2
        best = max(one.results, key=lambda result: result.hypothesis.score).hypothesis
        rows.append((x - half_w, y - half_h, x + half_w, y + half_h))
        scores.append(best.score)
        class_ids.append(int(best.class_id))
    return Detections(np.array(rows, np.float32), np.array(scores, np.float32), np.array(class_ids, np.int32))


def label_info_message(labels: tuple[str, ...], score_threshold: float) -> LabelInfo:
    """The names of the class ids. Its header is empty: it belongs to no image."""
    classes = [VisionClass(class_id=i, class_name=name) for i, name in enumerate(labels)]
    return LabelInfo(class_map=classes, threshold=float(score_threshold))


def vision_info_message(method: str, location: str, version: int) -> VisionInfo:
    """The model that is running. version counts the models that this node has loaded."""
    return VisionInfo(method=method, database_location=location, database_version=version)


def frame_event_message(tick: FrameEvent) -> DiagnosticArray:
    """A tick under its frame's header."""
    values = [
        KeyValue(key="fate", value=tick.fate),
        KeyValue(key="regions", value=json.dumps(tick.regions.tolist())),
    ]
    if tick.camera_motion is not None:
        values.append(KeyValue(key="camera_motion", value=json.dumps(tick.camera_motion.ravel().tolist())))
    status = DiagnosticStatus(name=tick.stage, message=tick.reason, values=values)
    return DiagnosticArray(header=header_of(tick.stamp_ns, tick.frame_id), status=[status])


def frame_event_from_message(message: DiagnosticArray) -> FrameEvent:
    """The inverse of `frame_event_message`. Raises ValueError on a message that is no tick."""
    if len(message.status) != 1:
        raise ValueError(f"expected one status in a tick, got {len(message.status)}")
    status = message.status[0]
    values = {pair.key: pair.value for pair in status.values}
    if values.get("fate", "") not in ("", *FATES):
        raise ValueError(f"'{values['fate']}' is no fate: expected one of {', '.join(FATES)}")
    regions = np.array(json.loads(values.get("regions", "[]")), np.float32).reshape(-1, 4)
    stamp_ns = message.header.stamp.sec * NS_PER_S + message.header.stamp.nanosec
    return FrameEvent(
        stamp_ns,
        message.header.frame_id,
        status.name,
        values.get("fate", ""),
        status.message,
        regions,
        camera_motion=_motion(values.get("camera_motion")),
    )


def _motion(text: str | None) -> np.ndarray | None:
    """(3, 3) of nine numbers. Raises ValueError where it is something else."""
    if text is None:
        return None
    motion = np.array(json.loads(text), np.float64).reshape(3, 3)
    if not np.isfinite(motion).all():
        raise ValueError(f"expected nine finite numbers of camera motion, got {text}")
    return motion


def status_message(
    name: str, hardware_id: str, level: int, text: str, values: dict[str, Any]
) -> DiagnosticStatus:
    """One diagnostic status, without secrets and control characters; None and NaN become "unavailable"."""
    pairs = [KeyValue(key=printable(key), value=_as_text(value)) for key, value in values.items()]
    message = printable(redact_text(" ".join(text.split())))
    return DiagnosticStatus(
        name=name, hardware_id=hardware_id, level=bytes([level]), message=message, values=pairs
    )


def _as_text(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "unavailable"
    return f"{value:.3f}" if isinstance(value, float) else printable(redact_text(str(value)))


def status_values(status: DiagnosticStatus) -> dict[str, str]:
    """The key-value pairs of a status."""
    return {pair.key: pair.value for pair in status.values}
