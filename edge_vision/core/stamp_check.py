"""Checks the stamps of a camera's images, and states what is wrong with them and what to do about it."""

from __future__ import annotations

from typing import Any

from edge_vision.errors import ImageError

NS_PER_S = 1_000_000_000
MAX_STAMP_NS = 2**31 * NS_PER_S - 1
"""The latest builtin_interfaces/Time, in 2038."""


def stamp_to_ns(stamp: Any) -> int:
    """A builtin_interfaces/Time in ns. Raises ImageError(bad_stamp) if it is not representable as such."""
    if stamp.nanosec >= NS_PER_S:
        raise ImageError("bad_stamp", f"expected nanosec below 1e9 in the stamp, got {stamp.nanosec}")
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


class StampCheck:
    """Compares each stamp with the previous one."""

    def __init__(self) -> None:
        self._last_ns: int | None = None

    def check(self, stamp_ns: int) -> str:
        """The fault of a stamp: stamp_zero, stamp_backwards or stamp_repeated; "" if it increased.

        After a jump back only the first frame is rejected: the next one is compared with it.
        """
        if stamp_ns <= 0:
            return "stamp_zero"
        last_ns, self._last_ns = self._last_ns, stamp_ns
        if last_ns is None or stamp_ns > last_ns:
            return ""
        return "stamp_repeated" if stamp_ns == last_ns else "stamp_backwards"

    def reset(self) -> None:
        """Accept any stamp next."""
        self._last_ns = None


def stamp_error(reason: str, stamp_ns: int, clock_ns: int, topic: str, publishers: int) -> str:
    """The message for a refused stamp. reason: as `StampCheck.check` returns it; clock_ns: the node's clock;
    topic, publishers: the image topic that is subscribed to, and its number of publishers."""
    stamp_s = stamp_ns / 1e9
    if reason == "stamp_zero" and clock_ns == 0:
        reason = "no_clock"
    elif reason != "stamp_zero" and publishers > 1:
        return _SEVERAL_PUBLISHERS.format(stamp_s, publishers, topic)
    return _STAMP_ERRORS[reason].format(stamp_s)


def silence_error(topic: str, silent_s: float, publishers: int) -> str:
    """The message for a topic without images."""
    return (
        f"no image on {topic} for {silent_s:.0f} s ({publishers} publishers): is the camera driver running, "
        "is the topic's name right, is its QoS compatible?"
    )


_SEVERAL_PUBLISHERS = (
    "frame refused: its stamp {:.3f} s is not later than the previous one, and there are {} publishers on "
    "{}: give each camera its own topic"
)
_STAMP_ERRORS = {
    "no_clock": "frame refused: its stamp is {:.3f} s; use_sim_time is set and /clock has not been received",
    "stamp_zero": "frame refused: its stamp is {:.3f} s; the camera driver must stamp its images",
    "stamp_backwards": "frame refused: its stamp {:.3f} s is earlier than the previous one; the clock "
    "jumped, or a bag was restarted. The next frame starts a new time line",
    "stamp_repeated": "frame refused: its stamp {:.3f} s equals the previous one",
}
