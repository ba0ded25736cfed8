"""When a gate looks at nothing: it would only find what it found before."""

from __future__ import annotations

FIRST_MS = 400.0
MOST_MS = 4000.0
"""A rest that grows is twice as long as the one before, up to this: so long may it take until it is seen that
all is quiet again. Nothing is missed meanwhile, as frames go on to pass."""


class BackOff:
    """on: nobody looks."""

    def __init__(self) -> None:
        self._ms = FIRST_MS
        self.end()

    def begin(self, mono_ns: int, grows: bool) -> None:
        """Rest, as something new was there. grows: longer than the last time."""
        self.on = True
        self._until_ns = mono_ns + round(self._ms * 1e6)
        if grows:
            self._ms = min(2.0 * self._ms, MOST_MS)

    def is_over(self, mono_ns: int) -> bool:
        """Whether it is time to look again."""
        return mono_ns >= self._until_ns

    def wake(self, compares: bool = False) -> None:
        """Look again. compares: the next look compares with a frame from before the rest."""
        self.on = False
        self._compares = compares

    def woke(self) -> bool:
        """Whether this look compares with a frame from before a rest. Ask once for each look."""
        compares, self._compares = self._compares, False
        return compares

    def end(self) -> None:
        """Something else has come up, or all is quiet: the next rest is a short one."""
        self.on = self._compares = False
        self._until_ns = 0
        self._ms = FIRST_MS
