"""Bags with images, written by rosbags in every format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

START_NS, PERIOD_NS = 1_700_000_000_000_000_000, 100_000_000
WIDTH_PX, HEIGHT_PX = 64, 48


class Recorded(NamedTuple):
    """An image of a bag. time_ns: when it was recorded; its stamp is 7 ms before."""

    image: np.ndarray
    time_ns: int
    topic: str = "/cam/image_raw"
    encoding: str = "bgr8"

    @property
    def stamp_ns(self) -> int:
        return self.time_ns - 7_000_000


def picture(number: int) -> np.ndarray:
    """(HEIGHT_PX, WIDTH_PX, 3) noise, different for each number."""
    return np.random.default_rng(number).integers(0, 256, (HEIGHT_PX, WIDTH_PX, 3), np.uint8)


def recording(count: int = 5, period_ns: int = PERIOD_NS, **values: Any) -> list[Recorded]:
    """Different images at an even rate."""
    return [Recorded(picture(n), START_NS + n * period_ns, **values) for n in range(count)]


def write_bag(path: Path, images: Iterable[Recorded], change: Callable[[Any], Any] = lambda m: m) -> Path:
    """A bag in the format of the suffix: .bag, .mcap, .db3, or none for a folder in the default format.

    change: of each message before it is written.
    """
    return (_write_ros1 if path.suffix == ".bag" else _write_ros2)(path, images, change)


def _write_ros1(path: Path, images: Iterable[Recorded], change: Callable[[Any], Any]) -> Path:
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore

    store, connections = get_typestore(Stores.ROS1_NOETIC), {}
    with Writer(path) as writer:
        for one in images:
            message = change(image_message(store, one, seq=1))
            kind = message.__msgtype__
            if one.topic not in connections:
                connections[one.topic] = writer.add_connection(one.topic, kind, typestore=store)
            writer.write(connections[one.topic], one.time_ns, store.serialize_ros1(message, kind))
    return path


def _write_ros2(path: Path, images: Iterable[Recorded], change: Callable[[Any], Any]) -> Path:
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store, connections = get_typestore(Stores.ROS2_JAZZY), {}
    plugin = StoragePlugin.MCAP if path.suffix == ".mcap" else StoragePlugin.SQLITE3
    folder = path.with_suffix("")
    with Writer(folder, version=9, storage_plugin=plugin) as writer:
        for one in images:
            message = change(image_message(store, one))
            kind = message.__msgtype__
            if one.topic not in connections:
                connections[one.topic] = writer.add_connection(one.topic, kind, typestore=store)
            writer.write(connections[one.topic], one.time_ns, store.serialize_cdr(message, kind))
    if path.suffix:
        (folder / path.name).rename(path)
    return path


def image_message(store: Any, one: Recorded, **header: Any) -> Any:
    sec, nanosec = divmod(one.stamp_ns, 10**9)
    types = store.types
    stamp = types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
    head = types["std_msgs/msg/Header"](stamp=stamp, frame_id="optical", **header)
    if one.encoding in ("jpeg", "png"):
        data = cv2.imencode(f".{one.encoding}", one.image)[1].ravel()
        return types["sensor_msgs/msg/CompressedImage"](header=head, format=one.encoding, data=data)
    height, width = one.image.shape[:2]
    data = one.image.ravel()
    return types["sensor_msgs/msg/Image"](
        header=head,
        height=height,
        width=width,
        encoding=one.encoding,
        is_bigendian=0,
        step=one.image.nbytes // height,
        data=data,
    )
