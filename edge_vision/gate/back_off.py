"""Back-off of the gate's own analysis while the scene keeps changing and it would find the same again."""

from __future__ import annotations

FIRST_MS = 400.0
MAX_MS = 4000.0
"""A growing back-off doubles up to this, the longest time until a scene that became quiet is noticed. Nothing
is missed meanwhile, as frames go on to pass."""


class BackOff:
    """on: the gate does not analyse frames."""

    def __init__(self) -> None:
        self._ms = FIRST_MS
        self.end()

    def begin(self, mono_ns: int, grows: bool) -> None:
        """Stop analysing. grows: the next back-off lasts twice as long."""
        self.on = True
        self._until_ns = mono_ns + round(self._ms * 1e6)
        if grows:
            self._ms = min(2.0 * self._ms, MAX_MS)

    def is_over(self, mono_ns: int) -> bool:
        """Whether it is time to analyse a frame again."""
        return mono_ns >= self._until_ns

    def wake(self, compares: bool = False) -> None:
        """Analyse again. compares: the next analysis compares with a frame from before the back-off."""
        self.on = False
        self._compares = compares

    def woke(self) -> bool:
        """Whether this analysis compares with a frame from before a back-off. Call once per analysis."""
        compares, self._compares = self._compares, False
        return compares

    def end(self) -> None:
        """End it early: the next back-off is short again."""
        self.on = self._compares = False
        self._until_ns = 0
        self._ms = FIRST_MS
