"""What is known of a pipeline from outside: its nodes' reports, and who publishes what under which QoS."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A publisher or subscription. reliability, durability, liveliness: lower-case words of ROS."""

    node: str
    type: str
    reliability: str = "reliable"
    durability: str = "volatile"
    deadline_ns: int = 0  # 0 = none
    liveliness: str = "automatic"


@dataclass(frozen=True, slots=True)
class Intake:
    """Where a stage takes its images from, over DDS. others: image topics that somebody publishes.
    beside: camera_info messages that came while no image did, None where there is no such topic.
    published_ms: for how long there has been a publisher."""

    topic: str
    own: Endpoint
    publishers: tuple[Endpoint, ...] = ()
    others: tuple[str, ...] = ()
    beside: int | None = None
    published_ms: float = float("inf")


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A node of the chain as it last reported. values: of its status. added: what its books and counters have
    gained from the report before the last to the last; empty before there are two. reports: how many came.
    level: of the report. silent_s: since it came. process: of a silent node on this machine, "ended" or
    "stopped"."""

    name: str
    message: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    added: Mapping[str, int] = field(default_factory=dict)
    intake: Intake | None = None
    reports: int = 1
    level: int = 0
    silent_s: float = 0.0
    process: str = ""

    def number(self, key: str) -> float | None:
        """A value as a number, None where there is none."""
        try:
            return float(self.values[key])
        except (KeyError, ValueError):
            return None

    def says(self, key: str) -> bool:
        """True where a value is "True"."""
        return self.values.get(key) == "True"


@dataclass(frozen=True, slots=True)
class PipelineSnapshot:
    """Stages that report, in the order of the flow, the source first. namespace: of the pipeline, as "/front"
    or "/". silent: stages whose last report is too old to count. missing: expected nodes that never reported.
    barren_s: for how long nothing was inferred. unexplained_s: the same, since a cause was last found. Both
    are None without a detector."""

    stages: tuple[NodeReport, ...]
    clock_publishers: int = 1
    namespace: str = "/"
    silent: tuple[NodeReport, ...] = ()
    missing: tuple[str, ...] = ()
    barren_s: float | None = None
    unexplained_s: float | None = None

    @property
    def books(self) -> Mapping[str, int]:
        """What the books of the last stage have gained: they are the whole ones."""
        return self.stages[-1].added if self.stages else {}

    @property
    def intakes(self) -> Sequence[tuple[NodeReport, Intake]]:
        """The stages that take images over DDS, each with where from."""
        return [(stage, stage.intake) for stage in self.stages if stage.intake]

    @property
    def ending(self) -> bool:
        """True while a node says that its process is about to end. That of a finalized one lives on."""
        return any(
            stage.message == "stopped" and stage.values.get("state") != "finalized" for stage in self.stages
        )

    @property
    def flowing(self) -> bool:
        """True where frames have reached the end of the chain since the report before: all nodes work."""
        reached = self.added("received") > 0 and not self.added("handed_on")
        return bool(self.stages) and self.stages[-1].name == "detector" and reached

    def lacks(self, name: str) -> bool:
        """True where a node that is expected has never reported."""
        return name in self.missing

    def stage(self, name: str) -> NodeReport | None:
        """The stage of this name, if it reports."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def path(self, node: str) -> str:
        """The node's full name."""
        return f"{self.namespace.rstrip('/')}/{node}"

    def added(self, key: str) -> int:
        """Accounts that were settled so, as in "failed.transport"."""
        return self.books.get(f"ledger.{key}", 0)

    @property
    def barren(self) -> bool:
        """True where no frame was inferred in between."""
        return bool(self.books) and self.added("inferred") == 0


def nearest(topic: str, others: Sequence[str]) -> list[str]:
    """The three names most like a topic's."""
    likeness = {name: difflib.SequenceMatcher(None, topic, name).ratio() for name in others}
    return sorted(likeness, key=lambda name: -likeness[name])[:3]


def clash(offered: Endpoint, asked: Endpoint) -> tuple[str, str, str] | None:
    """(policy, offered, asked for) of the first QoS policy that keeps two ends apart; None where none does.

    The rules are those of DDS, request against offered.
    """
    for policy, weaker in (
        ("reliability", "best_effort"),
        ("durability", "volatile"),
        ("liveliness", "automatic"),
    ):
        has, wants = getattr(offered, policy), getattr(asked, policy)
        if has == weaker and wants != weaker and "unknown" not in (has, wants):
            return policy, has, wants
    if asked.deadline_ns and (not offered.deadline_ns or offered.deadline_ns > asked.deadline_ns):
        return "deadline", f"{offered.deadline_ns or 'none'}", f"{asked.deadline_ns} ns"
    return None
