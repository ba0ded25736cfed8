"""One entry of /diagnostics in plain terms, as whoever reads it needs it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

LEVELS = ("OK", "WARN", "ERROR", "STALE")


@dataclass(frozen=True, slots=True)
class StatusEntry:
    """name: with the namespace, "front/gate". hardware_id: our nodes give the namespace, "/front". level:
    0 OK, 1 warning, 2 error, 3 stale."""

    name: str
    hardware_id: str = "/"
    level: int = 0
    message: str = ""
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def level_name(self) -> str:
        """The level as a word."""
        return LEVELS[self.level] if 0 <= self.level < len(LEVELS) else f"level {self.level}"

    @property
    def local_name(self) -> str | None:
        """The name within its pipeline, "gate" or "process 12"; None where it is none of ours."""
        namespace, _, part = f"/{self.name}".rpartition("/")
        return part if part and (namespace or "/") == self.hardware_id else None

    def number(self, key: str) -> float | None:
        """A value as a number; None where there is none, as in "unavailable" or "nan"."""
        try:
            value = float(self.values[key])
        except (KeyError, ValueError):
            return None
        return value if math.isfinite(value) else None

    def text(self, key: str) -> str:
        """A value as it came, "" where it is missing or unavailable."""
        value = self.values.get(key, "")
        return "" if value.startswith("unavailable") else value
