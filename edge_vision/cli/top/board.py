"""What /diagnostics said last, sorted by camera. Knows no ROS and no terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from edge_vision.core.diagnostic_status import StatusEntry
from edge_vision.core.printable import printable

# A diagnostics node reports once a second.
SILENT_S = 3.5
STAGES = ("source", "gate", "cascade", "detector")
_WHOLE = 2


@dataclass(slots=True)
class Camera:
    """One pipeline, named by its namespace. heard_s: when it last reported, monotonic."""

    name: str
    parts: dict[str, StatusEntry] = field(default_factory=dict)
    heard_s: float = 0.0

    def part(self, name: str) -> StatusEntry:
        """The status of a part, an empty one where it does not report."""
        return self.parts.get(name) or StatusEntry(name)

    @property
    def nodes(self) -> list[tuple[str, StatusEntry]]:
        """The watched nodes: those of the flow in its order, others after them."""
        names = [name for name in self.parts if name not in ("system", "output") and "process " not in name]
        flow = [name for name in STAGES if name in names]
        return [(name, self.parts[name]) for name in (*flow, *(n for n in names if n not in STAGES))]

    @property
    def processes(self) -> list[StatusEntry]:
        """One status a process."""
        return [status for name, status in self.parts.items() if name.startswith("process ")]

    @property
    def troubles(self) -> list[tuple[str, StatusEntry]]:
        """All that is not OK but `output`, the worst first."""
        found = [(name, one) for name, one in self.parts.items() if one.level and name != "output"]
        return sorted(found, key=lambda item: -item[1].level)

    @property
    def level(self) -> int:
        """The worst of all levels; an error is worse than a node that fell silent."""
        return max((one.level for one in self.parts.values()), key=_badness, default=0)


def _badness(level: int) -> int:
    return {0: 0, 1: 1, 3: 2, 2: 3}.get(level, 3)


class Board:
    """All cameras that were heard of. `note` each message of /diagnostics."""

    def __init__(self) -> None:
        self._cameras: dict[str, Camera] = {}
        self.foreign = 0
        self.messages = 0

    def note(self, statuses: Sequence[StatusEntry], now_s: float) -> None:
        """Take one message. What is not of a pipeline is counted as foreign, and left out."""
        self.messages += 1
        ours: dict[str, dict[str, StatusEntry]] = {}
        for status in map(_printable, statuses):
            part = status.local_name
            if part is None:
                self.foreign += 1
            else:
                ours.setdefault(status.hardware_id, {})[part] = status
        for name, parts in ours.items():
            camera = self._cameras.setdefault(name, Camera(name))
            # A whole report replaces the one before: a process that ended is in it no more.
            camera.parts = parts if len(parts) >= _WHOLE else {**camera.parts, **parts}
            camera.heard_s = now_s

    @property
    def cameras(self) -> list[Camera]:
        """By name."""
        return [self._cameras[name] for name in sorted(self._cameras)]


def _printable(status: StatusEntry) -> StatusEntry:
    """With control characters escaped: text from the network must not steer the terminal."""
    return replace(
        status,
        name=printable(status.name),
        hardware_id=printable(status.hardware_id),
        message=printable(status.message),
        values={printable(key): printable(value) for key, value in status.values.items()},
    )
