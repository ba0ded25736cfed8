"""Checks the stamps of a camera's images."""

from __future__ import annotations

from typing import Any

from edge_vision.errors import ImageError

NS_PER_S = 1_000_000_000


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
