"""Stamps and headers of ROS messages."""

from __future__ import annotations

from typing import Protocol

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from edge_vision.errors import ImageError

NS_PER_S = 1_000_000_000


def stamp_to_ns(stamp: Time) -> int:
    """A stamp as nanoseconds. Raises ImageError(bad_stamp) if it is not representable as such."""
    if stamp.nanosec >= NS_PER_S:
        raise ImageError("bad_stamp", f"expected nanosec below 1e9 in the stamp, got {stamp.nanosec}")
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


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
