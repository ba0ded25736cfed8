"""What starts a recording: the rules of the parameter `rules`, each true or false at a time.

A rule starts a recording when it becomes true, not while it stays true.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.diagnostic_status import finite_number
from edge_vision.core.geometry.zones import NO_ZONES, Zones

ALLOWED = (
    "audit_miss, fallback, cause, cause:NAME, temperature, temperature:DEGREES, class:NAME, "
    "class:NAME in zone, or class:NAME in zone ZONE"
)
DEFAULT_LIMIT_C, RELEASE_C = 85.0, 3.0
"""Of the rule temperature; it is false again this far below its limit."""
ABSENT_NS = 1_000_000_000
"""A class rule stays true this long after the last detection: detections flicker."""
_CLASS = re.compile(r"class:(?P<label>.+?)(?P<inside> in zone(?: (?P<zone>[\w-]+))?)?")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. kind: audit_miss, fallback, cause, temperature or class. name: of the cause, class. zone: of
    a class rule, a name, "" = what all zones together report, None = anywhere."""

    text: str
    kind: str
    name: str = ""
    zone: str | None = None
    limit_c: float = DEFAULT_LIMIT_C

    @property
    def slug(self) -> str:
        """The rule as a part of a file's name."""
        return re.sub(r"[^\w]+", "-", self.text, flags=re.ASCII).strip("-")[:40] or "rule"

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Raises ValueError, which lists what is allowed."""
        text = " ".join(text.split())
        kind, _, value = text.partition(":")
        if match := _CLASS.fullmatch(text):
            zone = (match["zone"] or "") if match["inside"] else None
            return cls(text, "class", match["label"].strip(), zone)
        if text in ("audit_miss", "fallback", "cause", "temperature"):
            return cls(text, text)
        if kind == "cause" and re.fullmatch(r"\w+", value, re.ASCII):
            return cls(text, kind, value)
        if kind == "temperature" and re.fullmatch(r"-?\d{1,3}(\.\d+)?", value, re.ASCII):
            return cls(text, kind, limit_c=float(value))
        raise ValueError(f"expected {ALLOWED}; got '{text:.100}'")


def parse_rules(texts: Sequence[str]) -> tuple[Rule, ...]:
    """All rules, each once. Raises ValueError."""
    return tuple({rule.text: rule for rule in map(Rule.parse, texts)}.values())


@dataclass(slots=True)
class _State:
    """Of a rule. value: what it compared last."""

    true: bool = False
    value: object = None
    seen_ns: int = field(default=-ABSENT_NS)


class RuleWatch:
    """Evaluates rules on what the pipeline publishes; calls on_rule when one becomes true. One thread."""

    def __init__(self, rules: Sequence[Rule], on_rule: Callable[[Rule], None]) -> None:
        self.rules, self._on_rule = tuple(rules), on_rule
        self._states = {rule: _State() for rule in self.rules}

    def kinds(self) -> set[str]:
        """The kinds of the rules: what need not be evaluated need not be decoded."""
        return {rule.kind for rule in self.rules}

    def _of(self, kind: str) -> Iterator[tuple[Rule, _State]]:
        return ((rule, state) for rule, state in self._states.items() if rule.kind == kind)

    def _set(self, rule: Rule, state: _State, true: bool) -> None:
        before, state.true = state.true, true
        if true and not before:
            self._on_rule(rule)

    def on_status(self, values: Mapping[str, str]) -> None:
        """The status of the gate or the detector. Each further miss of the audit, and each other reason of a
        fallback, counts as becoming true."""
        for kind, key in (("audit_miss", "audit.missed"), ("fallback", "backend.fallback_reason")):
            if key not in values:
                continue
            value = values[key]
            for rule, state in self._of(kind):
                before, state.value = state.value, value
                if kind == "audit_miss":
                    # The count starts again with each epoch. The first one read is history.
                    more = before is not None and _count(value) > _count(str(before))
                    true = more
                else:
                    true = bool(value) and value != before
                self._set(rule, state, False)
                self._set(rule, state, true)

    def on_output(self, level: int, values: Mapping[str, str]) -> None:
        """The status `output` of /diagnostics: why nothing is published."""
        name = values.get("cause", "none")
        for rule, state in self._of("cause"):
            self._set(rule, state, name == rule.name if rule.name else level > 0 and name != "none")

    def on_system(self, values: Mapping[str, str]) -> None:
        """The status `system` of /diagnostics."""
        hottest_c = finite_number(values, "temperature_c.max")
        for rule, state in self._of("temperature"):
            if hottest_c is not None:
                limit_c = rule.limit_c - (RELEASE_C if state.true else 0.0)
                self._set(rule, state, hottest_c >= limit_c)

    def on_detections(
        self,
        found: Detections,
        labels: Sequence[str],
        time_ns: int,
        size_px: tuple[int, int] | None = None,
        zones: Zones = NO_ZONES,
    ) -> None:
        """The detections of an inferred frame. size_px: of the image, None if unknown. time_ns: monotonic."""
        for rule, state in self._of("class"):
            of_class = np.array([_label(labels, i) == rule.name for i in found.class_ids.tolist()], bool)
            if rule.zone is not None:
                of_class &= _inside(rule.zone, found.xyxy_px, size_px, zones)
            if of_class.any():
                state.seen_ns = time_ns
            self._set(rule, state, time_ns - state.seen_ns < ABSENT_NS)

    def trouble(self, labels: Sequence[str], zones: Zones) -> str:
        """What the rules name and the model or the zones do not have; "" if nothing. labels: empty = not
        known yet."""
        named = [rule for rule in self.rules if rule.kind == "class"]
        unknown = sorted({rule.name for rule in named if labels and rule.name not in labels})
        have = {zone.name for zone in zones.all}
        without = sorted({rule.zone for rule in named if rule.zone and labels and rule.zone not in have})
        parts = [f"the model has no class {', '.join(unknown)}"] if unknown else []
        parts += [f"the detector has no zone {', '.join(without)}"] if without else []
        return f"rules: {' and '.join(parts)}" if parts else ""


def _count(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _label(labels: Sequence[str], class_id: int) -> str:
    return labels[class_id] if 0 <= class_id < len(labels) else str(class_id)


def _inside(name: str, xyxy_px: np.ndarray, size_px: tuple[int, int] | None, zones: Zones) -> np.ndarray:
    """(n,) bool: which boxes stand in a zone. None does while the image's size is unknown."""
    chosen = Zones(tuple(zone for zone in zones.all if zone.name == name)) if name else zones
    if size_px is None or not chosen:
        return np.zeros(len(xyxy_px), bool)
    if name:  # Also an exclude zone contains something.
        points = np.stack(((xyxy_px[:, 0] + xyxy_px[:, 2]) / 2, xyxy_px[:, 3]), axis=1)
        return chosen.all[0].contains(np.clip(points / np.array(size_px, np.float64), 0.0, 1.0))
    return chosen.contain(xyxy_px, size_px)
