"""The last statuses on /diagnostics, grouped by pipeline. Imports neither ROS nor a terminal library."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from edge_vision.core.diagnostic_status import StatusEntry
from edge_vision.core.printable import printable

# A diagnostics node publishes once a second.
SILENT_S = 3.5
STAGES = ("source", "gate", "cascade", "detector")
_MIN_PARTS_OF_FULL_REPORT = 2
MAX_CAMERAS, MAX_PARTS = 64, 256
_NAMESPACE = re.compile(r"/|(/[A-Za-z_][A-Za-z0-9_]*)+")


@dataclass(slots=True)
class PipelineStatus:
    """The statuses of one pipeline, by local name. received_s: monotonic time of the last report."""

    namespace: str
    parts: dict[str, StatusEntry] = field(default_factory=dict)
    received_s: float = 0.0

    def part(self, name: str) -> StatusEntry:
        """The status of a part, an empty one if it does not report."""
        return self.parts.get(name) or StatusEntry(name)

    @property
    def nodes(self) -> list[tuple[str, StatusEntry]]:
        """The watched nodes: the stages in the order of the flow, then all others."""
        names = [name for name in self.parts if name not in ("system", "output") and "process " not in name]
        flow = [name for name in STAGES if name in names]
        return [(name, self.parts[name]) for name in (*flow, *(n for n in names if n not in STAGES))]

    @property
    def processes(self) -> list[StatusEntry]:
        """The statuses of the processes."""
        return [status for name, status in self.parts.items() if name.startswith("process ")]

    @property
    def problems(self) -> list[tuple[str, StatusEntry]]:
        """All statuses that are not OK except `output`, the worst first."""
        problems = [(name, one) for name, one in self.parts.items() if one.level and name != "output"]
        return sorted(problems, key=lambda item: -item[1].level)

    @property
    def level(self) -> int:
        """The worst level; an error is worse than a stale status."""
        return max((one.level for one in self.parts.values()), key=_severity, default=0)


def _severity(level: int) -> int:
    return {0: 0, 1: 1, 3: 2, 2: 3}.get(level, 3)


class Board:
    """All pipelines that have reported. Call `update` with each message of /diagnostics."""

    def __init__(self) -> None:
        self._pipelines: dict[str, PipelineStatus] = {}
        self.other_statuses = 0
        self.message_count = 0

    def update(self, statuses: Sequence[StatusEntry], now_s: float) -> None:
        """Merge one message. Statuses of other nodes are only counted."""
        self.message_count += 1
        by_namespace: dict[str, dict[str, StatusEntry]] = {}
        for status in map(_printable, statuses):
            part = status.local_name
            if part is None:
                self.other_statuses += 1
            else:
                by_namespace.setdefault(status.hardware_id, {})[part] = status
        for namespace, parts in by_namespace.items():
            pipeline = self._pipelines.setdefault(namespace, PipelineStatus(namespace))
            # A full report replaces the previous one, which may list a process that has ended since.
            is_full = len(parts) >= _MIN_PARTS_OF_FULL_REPORT
            merged = parts if is_full else {**pipeline.parts, **parts}
            pipeline.parts = dict(islice(merged.items(), MAX_PARTS))
            pipeline.received_s = now_s

    @property
    def pipelines(self) -> list[PipelineStatus]:
        """Sorted by namespace."""
        return [self._pipelines[name] for name in sorted(self._pipelines)]


def of_pipelines(statuses: Sequence[StatusEntry], known: Collection[str]) -> list[StatusEntry]:
    """The statuses of pipelines, for programs that serve them: of known ones, and of new ones up to
    MAX_CAMERAS."""
    # Other software may report under its namespace, too.
    ours = {one.hardware_id for one in statuses if one.local_name in (*STAGES, "output")}
    new = sorted(name for name in ours - {*known} if _NAMESPACE.fullmatch(name))
    names = {*known, *new[: MAX_CAMERAS - len(known)]}
    return [one for one in statuses if one.hardware_id in names]


def _printable(status: StatusEntry) -> StatusEntry:
    """The status with control characters escaped: text from the network must not control the terminal."""
    return replace(
        status,
        name=printable(status.name),
        hardware_id=printable(status.hardware_id),
        message=printable(status.message),
        values={printable(key): printable(value) for key, value in status.values.items()},
    )
