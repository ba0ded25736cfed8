"""Entry of /diagnostics, without ROS types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

LEVELS = ("OK", "WARN", "ERROR", "STALE")


@dataclass(frozen=True, slots=True)
class StatusEntry:
    """One status. name: with namespace, "front/gate". hardware_id: nodes of edge_vision report their
    namespace, "/front". level: 0 OK, 1 warning, 2 error, 3 stale."""

    name: str
    hardware_id: str = "/"
    level: int = 0
    message: str = ""
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def level_name(self) -> str:
        """The level's name, such as "WARN"."""
        return LEVELS[self.level] if 0 <= self.level < len(LEVELS) else f"level {self.level}"

    @property
    def local_name(self) -> str | None:
        """The name without namespace, "gate" or "process 12"; None for a status from other software."""
        namespace, _, part = f"/{self.name}".rpartition("/")
        return part if part and (namespace or "/") == self.hardware_id else None

    def number(self, key: str) -> float | None:
        """See `finite_number`."""
        return finite_number(self.values, key)

    def text(self, key: str) -> str:
        """A value as published; "" if missing or unavailable."""
        value = self.values.get(key, "")
        return "" if value.startswith("unavailable") else value


def finite_number(values: Mapping[str, str], key: str) -> float | None:
    """A value as a number; None if missing, or not a finite number, such as "unavailable"."""
    try:
        value = float(values[key])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) else None
