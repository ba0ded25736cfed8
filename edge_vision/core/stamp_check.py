"""Checks that the stamps of a camera's images increase."""

from __future__ import annotations


class StampCheck:
    """A check that stamps grow. `check` names what is wrong with a stamp, "" where nothing is."""

    def __init__(self) -> None:
        self._last_ns: int | None = None

    def check(self, stamp_ns: int) -> str:
        """One of "", stamp_zero, stamp_backwards, stamp_repeated. A new time line is taken up at once:
        after a jump only the one frame is refused."""
        if stamp_ns <= 0:
            return "stamp_zero"
        last_ns, self._last_ns = self._last_ns, stamp_ns
        if last_ns is None or stamp_ns > last_ns:
            return ""
        return "stamp_repeated" if stamp_ns == last_ns else "stamp_backwards"

    def reset(self) -> None:
        """Forget the last stamp."""
        self._last_ns = None
