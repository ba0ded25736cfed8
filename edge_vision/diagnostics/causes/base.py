"""An entry of the table of causes, and the ordered list that a module fills."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from edge_vision.diagnostics.snapshot import PipelineSnapshot

OK, WARN, ERROR = 0, 1, 2
# Counters already cover the second between two reports: little more confirmation is needed.
COUNTED_S = 0.4
# A state that may have changed by the next report must be in that report too.
REPORTS_S = 1.2


@dataclass(frozen=True, slots=True)
class Cause:
    """Why nothing is published. level: OK where a setting may intend it. text: the problem and the remedy.
    wait_s: how long the cause must persist before it is reported, so that start-up and shutdown are not."""

    name: str
    level: int
    text: str
    wait_s: float = REPORTS_S


class Match(NamedTuple):
    """What a rule has found: one sentence with the remedy. wait_s: None for the entry's own."""

    text: str
    wait_s: float | None = None


Rule = Callable[[PipelineSnapshot], Match | None]


@dataclass(frozen=True, slots=True)
class CauseEntry:
    """One row of the table in docs/diagnostics.md, and the rule behind it. Several may share a name."""

    name: str
    level: int
    remedy: str
    rule: Rule
    wait_s: float

    @property
    def symptom(self) -> str:
        """The documentation of the rule as one line of Markdown."""
        return " ".join((self.rule.__doc__ or "").split())

    def find(self, snapshot: PipelineSnapshot) -> Cause | None:
        """The cause, if the rule matches."""
        match = self.rule(snapshot)
        if match is None:
            return None
        wait_s = self.wait_s if match.wait_s is None else match.wait_s
        return Cause(self.name, self.level, match.text, wait_s)


class CauseList:
    """Entries in the order in which they are tried."""

    def __init__(self) -> None:
        self._entries: list[CauseEntry] = []

    def add(self, name: str, level: int, remedy: str, wait_s: float = REPORTS_S) -> Callable[[Rule], Rule]:
        """Decorator: append an entry with the decorated rule, whose docstring is the symptom.

        remedy: one line of Markdown for the table. The rule's message names the remedy in full.
        """

        def decorate(rule: Rule) -> Rule:
            self._entries.append(CauseEntry(name, level, remedy, rule, wait_s))
            return rule

        return decorate

    def __iter__(self) -> Iterator[CauseEntry]:
        return iter(self._entries)
