"""Stamps and headers of ROS messages."""

from __future__ import annotations

from typing import Protocol

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from edge_vision.core.stamp_check import NS_PER_S


def header_of(stamp_ns: int, frame_id: str) -> Header:
    """A header with this stamp and frame_id."""
    sec, nanosec = divmod(stamp_ns, NS_PER_S)
    return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame_id)


class Headed(Protocol):
    """An object with a header: a frame or a frame event."""

    @property
    def stamp_ns(self) -> int: ...

    @property
    def frame_id(self) -> str: ...
