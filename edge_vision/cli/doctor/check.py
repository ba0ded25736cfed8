"""One check, and the exit code and JSON document of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from edge_vision import __version__
from edge_vision.core.redaction import redact_text, redact_values

OK, WARN, ERROR, UNKNOWN = LEVELS = ("OK", "WARN", "ERROR", "UNKNOWN")
INSTALLATION, RUNNING = "installation", "running"
FORMAT = 1
"""Of the JSON document; raised when a key changes its meaning."""


@dataclass(frozen=True, slots=True)
class Check:
    """part: installation or running. level: UNKNOWN if the check could not run. text: one sentence, with the
    remedy if something is wrong. values: the figures behind it, with units in their names."""

    part: str
    name: str
    level: str
    text: str
    values: Mapping[str, Any] = field(default_factory=dict)


def exit_code(checks: Sequence[Check]) -> int:
    """0 all OK, 1 warnings, 2 errors, 3 a check could not run."""
    levels = {check.level for check in checks}
    return next((code for level, code in ((ERROR, 2), (UNKNOWN, 3), (WARN, 1)) if level in levels), 0)


def counts(checks: Sequence[Check]) -> dict[str, int]:
    """The number of checks by level."""
    counted = Counter(check.level for check in checks)
    return {level: counted[level] for level in LEVELS}


def document(checks: Sequence[Check]) -> dict[str, Any]:
    """All checks as one JSON object; docs/doctor.md describes it."""
    return {
        "format": FORMAT,
        "version": __version__,
        "time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "exit_code": exit_code(checks),
        "counts": counts(checks),
        "checks": [
            {
                "part": check.part,
                "name": redact_text(check.name),
                "level": check.level,
                "text": redact_text(check.text),
                "values": redact_values(check.values),
            }
            for check in checks
        ],
    }
