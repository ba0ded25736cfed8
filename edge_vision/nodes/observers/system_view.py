"""All running pipelines, seen from outside: the records that `system_probe` fills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_vision.core.diagnostic_status import StatusEntry


@dataclass(slots=True)
class Pipeline:
    """The nodes of this package in one namespace, "/front" or "/".

    nodes: names in the graph. duplicates: names that several nodes have. reports: their `~/status`, by name.
    diagnostics: their entries on /diagnostics, by local name ("gate", "process 12", "output"). output: the
    same entry as derived without the diagnostics node. unmatched: why subscriptions to `detections` receive
    nothing, a sentence each.
    """

    namespace: str
    nodes: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    reports: dict[str, StatusEntry] = field(default_factory=dict)
    diagnostics: dict[str, StatusEntry] = field(default_factory=dict)
    output: StatusEntry | None = None
    unmatched: tuple[str, ...] = ()

    def full_name(self, part: str) -> str:
        """The part's name with the namespace, as on /diagnostics."""
        return f"{self.namespace}/{part}".lstrip("/")


@dataclass(slots=True)
class SystemView:
    """image_topics: published by other nodes. other_statuses: entries of other nodes on /diagnostics."""

    domain_id: int
    discovery_range: str
    rmw: str
    duration_s: float
    pipelines: tuple[Pipeline, ...] = ()
    other_nodes: tuple[str, ...] = ()
    image_topics: tuple[str, ...] = ()
    other_statuses: tuple[StatusEntry, ...] = ()

    @property
    def scope(self) -> str:
        """Where nodes were searched for, as text."""
        return f"domain {self.domain_id}, discovery range {self.discovery_range}, {self.rmw}"


def discovery_range(environment: Mapping[str, str]) -> str:
    """The range of automatic discovery, as ROS 2 derives it from environment variables."""
    if environment.get("ROS_LOCALHOST_ONLY") == "1":
        return "LOCALHOST"
    return environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "") or "SUBNET"
