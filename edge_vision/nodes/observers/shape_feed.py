"""Masks and key points of the frames that the live page shows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import PolygonInstanceStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import PointCloud2, PointField

from edge_vision.core.detection_overlay import BONES, MIN_POINT_SCORE
from edge_vision.nodes.observers.cdr_reader import read_polygon
from edge_vision.nodes.observers.metrics_listener import stamp_of

MAX_OBJECTS, MAX_POINTS = 500, 200
MAX_FRAMES, MAX_FRAME_BYTES = 8, 1_000_000
WAIT_S = 0.05
"""Shapes are published after the tracks: longest wait of a picture for them."""
TOLERANCE_PX = 1.0
MAX_PX = 1e6
MAX_VERTICES = 4000
"""Of an outline that is simplified, which takes quadratic time at worst; of a longer one every n-th."""
# One message per object. Best effort: a page that is slow delays no publisher.
PER_OBJECT = QoSProfile(depth=MAX_OBJECTS, reliability=QoSReliabilityPolicy.BEST_EFFORT)
_FIELDS = ("u", "v", "score")

Lines = list[list[int]]
"""Each the index of an object, then x and y in px of an outline, of the two ends of a bone, or of a joint."""
LinesOf = Callable[[int], Lines]
_Reader = Callable[[bytes], Lines]


class ShapeFeed:
    """The shapes of one camera's last frames, while somebody watches it."""

    def __init__(self, node: Node, namespace: str) -> None:
        self._node, self._arrived = node, threading.Condition()
        self._frames: OrderedDict[int, list[tuple[_Reader, bytes]]] = OrderedDict()
        self._topics = (f"{namespace}/masks/polygons", f"{namespace}/keypoints")
        kinds = ((PolygonInstanceStamped, outline_of), (PointCloud2, skeletons_of))
        self._subscriptions = [
            node.create_subscription(kind, topic, partial(self._on_message, read), PER_OBJECT, raw=True)
            for topic, (kind, read) in zip(self._topics, kinds, strict=True)
        ]

    def close(self) -> None:
        for one in self._subscriptions:
            self._node.destroy_subscription(one)

    def of(self, stamp_ns: int) -> LinesOf | None:
        """What returns the lines of a frame, given its number of objects, in any thread; None if no model
        publishes shapes."""
        return partial(self._lines, stamp_ns) if any(map(self._node.count_publishers, self._topics)) else None

    def _on_message(self, read: _Reader, message: bytes) -> None:
        if (stamp_ns := stamp_of(message)) is None:
            return
        with self._arrived:
            found = self._frames.setdefault(stamp_ns, [])
            held = sum(len(one) for _, one in found)
            if len(found) < MAX_OBJECTS and held + len(message) <= MAX_FRAME_BYTES:
                found.append((read, message))
            if len(self._frames) > MAX_FRAMES:
                self._frames.popitem(last=False)
            self._arrived.notify_all()

    def _lines(self, stamp_ns: int, objects: int) -> Lines:
        def complete() -> bool:
            found = self._frames.get(stamp_ns, [])
            return len(found) >= objects or any(read is skeletons_of for read, _ in found)

        with self._arrived:
            self._arrived.wait_for(complete, WAIT_S)
            found = list(self._frames.get(stamp_ns, ()))
        lines: Lines = []
        for read, message in found:
            with suppress(Exception):  # Of a message that another program has published.
                lines += read(message)
        return lines


def outline_of(message: bytes) -> Lines:
    """The simplified outline in a serialized PolygonInstanceStamped. Raises ValueError."""
    vertices, number = read_polygon(message)
    if not len(vertices) or not (np.abs(vertices) < MAX_PX).all() or not 1 <= number <= MAX_OBJECTS:
        raise ValueError("expected finite vertices and the number of an object")
    vertices = vertices[:: 1 + (len(vertices) - 1) // MAX_VERTICES]
    outline = cv2.approxPolyDP(np.ascontiguousarray(vertices, np.float32), TOLERANCE_PX, True)
    return [[number - 1, *np.rint(outline).astype(int).ravel().tolist()]]


def skeletons_of(message: bytes) -> Lines:
    """The visible key points in a serialized PointCloud2, and the bones between them. Raises ValueError,
    LookupError, RuntimeError."""
    cloud: Any = deserialize_message(message, PointCloud2)
    count = cloud.height * cloud.width
    if not 0 < count * cloud.point_step <= len(cloud.data):
        raise ValueError("expected key points")
    offsets = {one.name: one.offset for one in cloud.fields if one.datatype == PointField.FLOAT32}
    # NumPy adds them in 32 bits: it would accept 2**31 - 1, and read there.
    if not all(offsets[name] + 4 <= cloud.point_step for name in _FIELDS):
        raise ValueError("expected fields within a point")
    form = ">f4" if cloud.is_bigendian else "<f4"
    layout = np.dtype(
        {
            "names": _FIELDS,
            "formats": [form] * len(_FIELDS),
            "offsets": [offsets[name] for name in _FIELDS],
            "itemsize": cloud.point_step,
        }
    )
    rows = np.frombuffer(cloud.data, layout, count).reshape(cloud.height, cloud.width)
    rows = rows[:MAX_OBJECTS, :MAX_POINTS]
    pixels = np.stack((rows["u"], rows["v"]), axis=-1)
    visible = (np.abs(pixels) < MAX_PX).all(axis=-1) & (rows["score"] >= MIN_POINT_SCORE)
    pixels = np.rint(np.where(visible[..., None], pixels, 0)).astype(int)
    lines: Lines = [[at, *pixels[at, point].tolist()] for at, point in np.argwhere(visible).tolist()]
    for bone in BONES.get(cloud.width, "").split():
        ends = list(map(int, bone.split("-")))
        lines += [
            [at, *pixels[at, ends].ravel().tolist()]
            for at in np.flatnonzero(visible[:, ends].all(1)).tolist()
        ]
    return lines
