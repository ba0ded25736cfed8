"""What a cause is, and the list of rules that a module fills."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edge_vision.diagnostics.snapshot import PipelineSnapshot

OK, WARN, ERROR = 0, 1, 2
# What was counted over the second between two reports need not be seen for much longer.
COUNTED_S = 0.4
# What may be gone with the next report must be in that one too.
REPORTS_S = 1.2


@dataclass(frozen=True, slots=True)
class Cause:
    """name: a word. level: OK where a setting may want it so. text: what is wrong, and what to do. wait_s: it
    must be seen for this long, as what is only on its way up or down is none."""

    name: str
    level: int
    text: str
    wait_s: float = REPORTS_S


Rule = Callable[[PipelineSnapshot], Cause | None]


class Rules:
    """Rules in the order in which they are added."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def add(self, rule: Rule) -> Rule:
        """Add a rule; a decorator."""
        self._rules.append(rule)
        return rule

    def __iter__(self) -> Iterator[Rule]:
        return iter(self._rules)
