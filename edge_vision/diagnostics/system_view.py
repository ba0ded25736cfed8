"""What is running, as seen from outside: plain values, gathered by `nodes/system_probe.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_vision.core.diagnostic_status import StatusEntry


@dataclass(slots=True)
class Pipeline:
    """One namespace with nodes of ours, as "/front" or "/".

    nodes: in the graph, by name. twice: those of which there are several. reports: their own `~/status`, by
    name. told: what /diagnostics says, by the name within the pipeline ("gate", "process 12", "output").
    cause: `output` as the doctor itself sees it. unfit: listeners to detections that get none, and why.
    """

    namespace: str
    nodes: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()
    reports: dict[str, StatusEntry] = field(default_factory=dict)
    told: dict[str, StatusEntry] = field(default_factory=dict)
    cause: StatusEntry | None = None
    unfit: tuple[str, ...] = ()

    def title(self, part: str) -> str:
        """The part's name with the namespace, as on /diagnostics."""
        return f"{self.namespace}/{part}".lstrip("/")


@dataclass(slots=True)
class SystemView:
    """What was seen. others: nodes of others. images: topics with images that somebody else publishes.
    foreign: statuses of others on /diagnostics."""

    domain_id: int
    discovery_range: str
    rmw: str
    seconds: float
    pipelines: tuple[Pipeline, ...] = ()
    others: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    foreign: tuple[StatusEntry, ...] = ()

    @property
    def place(self) -> str:
        """Where was looked, in words."""
        return f"domain {self.domain_id}, discovery range {self.discovery_range}, {self.rmw}"


def discovery_range(given: Mapping[str, str]) -> str:
    """How far nodes look for others, as ROS 2 reads it from the environment."""
    if given.get("ROS_LOCALHOST_ONLY") == "1":
        return "LOCALHOST"
    return given.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "") or "SUBNET"
