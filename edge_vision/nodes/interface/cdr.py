"""Serializes Detection2DArray messages directly, for the hot path.

rclpy converts a message field by field, including 36 covariance values per box: 0.4 ms for five boxes right
after an inference; this takes a fifth of that. The layout is plain CDR (OMG DDS-XTypes 1.3, 7.4.1, little
endian), and is used only if this middleware deserializes it to the same message.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from vision_msgs.msg import Detection2DArray

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.nodes.interface.detection_messages import detections_message, oriented_rows, rows_of
from edge_vision.nodes.interface.headers import NS_PER_S, Headed

START = b"\x00\x01\x00\x00"
_STAMP_AND_LENGTH = struct.Struct("<iII")
COUNT = struct.Struct("<I")
_ONE_RESULT = struct.Struct("<II")
SCORE = struct.Struct("<d")
BOX = struct.Struct("<5d")
# No position, no rotation (x, y, z, w), no covariance.
POSE = struct.pack("<7d", 0, 0, 0, 0, 0, 0, 1) + bytes(36 * 8)


def encode_detections(found: Detections, of: Headed, ids: np.ndarray | None = None) -> bytes:
    """The serialized `detections_message(found, of, ids)`."""
    frame_id = of.frame_id.encode()
    sec, nanosec = divmod(of.stamp_ns, NS_PER_S)
    header = _STAMP_AND_LENGTH.pack(sec, nanosec, len(frame_id) + 1) + frame_id + b"\0"
    header += bytes(-len(header) % 4)
    out = bytearray(START + header + COUNT.pack(len(found)))
    oriented = oriented_rows(found)
    for at, ((left, top, right, bottom), score, class_id, track) in enumerate(rows_of(found, ids)):
        name = str(class_id).encode()
        out += bytes(-len(out) % 4) + header + _ONE_RESULT.pack(1, len(name) + 1) + name + b"\0"
        # Alignment counts from the end of the four-byte encapsulation header.
        out += bytes((4 - len(out)) % 8) + SCORE.pack(score) + POSE
        if oriented is None:
            out += BOX.pack((left + right) / 2, (top + bottom) / 2, 0.0, right - left, bottom - top)
        else:
            x, y, width, height, theta = oriented[at]
            out += BOX.pack(x, y, theta, width, height)
        out += _text(track)
    return bytes(out)


def _text(text: str) -> bytes:
    """An ASCII string at an offset that is aligned to four bytes."""
    return COUNT.pack(len(text) + 1) + text.encode() + b"\0"


def best_encoder() -> Callable[[Detections, Headed, np.ndarray | None], Any]:
    """`encode_detections` if this middleware deserializes samples of it correctly, otherwise
    `detections_message`. `Publisher.publish` accepts the results of both."""
    same = all(_same(count, frame_id) for count, frame_id in ((0, ""), (1, "cam"), (3, "camera")))
    return encode_detections if same else detections_message


def _same(count: int, frame_id: str) -> bool:
    steps = np.arange(count, dtype=np.float32)
    boxes = np.stack([steps, steps + 1.5, steps + 20, steps + 30.25], axis=1).reshape(count, 4)
    found = Detections(boxes, steps / 7, (steps * 45).astype(np.int32))
    frame = Frame(np.zeros((1, 1, 3), np.uint8), 1_700_000_000_123_456_789, frame_id)
    ids = np.arange(count) * 999 if frame_id else None
    message, raw = detections_message(found, frame, ids), encode_detections(found, frame, ids)
    # Not compared byte by byte: some middlewares leave padding bytes uninitialized.
    if len(serialize_message(message)) != len(raw):
        return False
    return bool(deserialize_message(raw, Detection2DArray) == message)
