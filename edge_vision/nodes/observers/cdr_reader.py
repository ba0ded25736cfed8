"""Reads serialized Image, Detection2DArray and PolygonInstanceStamped messages directly, for viewers.

rclpy copies an image twice: 0.7 ms at 640x480, of which a view of the serialized bytes takes nothing. The
layout is plain CDR (OMG DDS-XTypes 1.3, 7.4.1), little endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from edge_vision.core.frame import ENCODINGS
from edge_vision.nodes.interface.cdr import BOX, COUNT, POSE, SCORE, START

_HEAD_BYTES = 4
_STAMP = struct.Struct("<iI")
_SIZE = struct.Struct("<II")
_ID = struct.Struct("<q")
_POSE_BYTES, _VERTEX_BYTES = len(POSE), 12


class _Reader:
    """Reads the values of a message one after another. Raises ValueError where the bytes end too early, or
    are in another layout than plain CDR, little endian."""

    def __init__(self, raw: bytes) -> None:
        if raw[: len(START)] != START:
            raise ValueError(f"expected plain CDR, got {bytes(raw[:4])!r}")
        self._bytes, self._at = raw, _HEAD_BYTES

    def take(self, form: struct.Struct, alignment: int = 4) -> tuple[Any, ...]:
        self._align(alignment)
        at, self._at = self._at, self._at + form.size
        try:
            return form.unpack_from(self._bytes, at)
        except struct.error:
            raise ValueError(f"expected more than {len(self._bytes)} bytes") from None

    def count(self) -> int:
        return int(self.take(COUNT)[0])

    def text(self) -> str:
        """A string, without the byte 0 at its end."""
        return str(self.slice(self.count())[:-1], "utf-8", "replace")

    def slice(self, size: int) -> memoryview:
        at, self._at = self._at, self._at + size
        if self._at > len(self._bytes):
            raise ValueError(f"expected {self._at} bytes or more, got {len(self._bytes)}")
        return memoryview(self._bytes)[at : self._at]

    def byte(self) -> int:
        return self.slice(1)[0]

    def skip(self, size: int, alignment: int) -> None:
        self._align(alignment)
        self.slice(size)

    def _align(self, alignment: int) -> None:
        self._at += (_HEAD_BYTES - self._at) % alignment


@dataclass(frozen=True, slots=True)
class ImageView:
    """The fields of a serialized Image; the pixels are a view of its bytes."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


def read_image(raw: bytes) -> ImageView | Image:
    """A serialized Image, for `frame_from_message`; as rclpy reads it if it is not plain CDR, or has an
    encoding of cv_bridge, which needs a message. Raises what rclpy raises."""
    try:
        reader = _Reader(raw)
        sec, nanosec = reader.take(_STAMP)
        frame_id = reader.text()
        height, width = reader.take(_SIZE)
        encoding, is_bigendian = reader.text(), reader.byte()
        step, size = reader.take(_SIZE)
        data = reader.slice(size)
    except ValueError:
        return deserialize_message(raw, Image)
    if encoding not in ENCODINGS:
        return deserialize_message(raw, Image)
    header = Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame_id)
    return ImageView(header, height, width, encoding, is_bigendian, step, data)


def read_boxes(raw: bytes) -> Iterator[tuple[list[tuple[str, float]], tuple[float, ...], str]]:
    """Of each detection of a serialized Detection2DArray: class ids with their scores, the box's centre x and
    y, angle, width and height, and the id. Raises ValueError if it is none in plain CDR."""
    reader = _Reader(raw)
    reader.take(_STAMP)
    reader.text()
    for _ in range(reader.count()):
        reader.take(_STAMP)
        reader.text()
        results = []
        for _ in range(reader.count()):
            name, (score,) = reader.text(), reader.take(SCORE, 8)
            reader.skip(_POSE_BYTES, 8)
            results.append((name, score))
        yield results, reader.take(BOX, 8), reader.text()


def read_polygon(raw: bytes) -> tuple[np.ndarray, int]:
    """The vertices, (n, 2) float32 x and y, and the id of a serialized PolygonInstanceStamped: rclpy makes an
    object of each vertex. Raises ValueError if it is none in plain CDR."""
    reader = _Reader(raw)
    reader.take(_STAMP)
    reader.text()
    xyz = np.frombuffer(reader.slice(_VERTEX_BYTES * reader.count()), "<f4").reshape(-1, 3)
    return xyz[:, :2], int(reader.take(_ID, 8)[0])
