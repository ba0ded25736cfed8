"""The state of a pipeline as seen from outside: the reports of its nodes, and the endpoints of its topics."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from edge_vision.core.diagnostic_status import finite_number


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A publisher or subscription. reliability, durability, liveliness: the policies' names in lower case."""

    node: str
    type: str
    reliability: str = "reliable"
    durability: str = "volatile"
    deadline_ns: int = 0  # 0 = none
    liveliness: str = "automatic"


@dataclass(frozen=True, slots=True)
class ImageInput:
    """The topic from which a stage receives its images.

    other_topics: further published image topics that no pipeline uses. camera_info_count: messages received
    while no image arrived; None without such a topic. published_ms: time since the topic has had a publisher.
    """

    topic: str
    subscription: Endpoint
    publishers: tuple[Endpoint, ...] = ()
    other_topics: tuple[str, ...] = ()
    camera_info_count: int | None = None
    published_ms: float = float("inf")

    @property
    def image_publishers(self) -> list[str]:
        """The nodes that publish the subscribed type, once per publisher."""
        return [one.node for one in self.publishers if one.type == self.subscription.type]


@dataclass(frozen=True, slots=True)
class NodeReport:
    """The last report of a node.

    values: of its status. increments: of its counters since the report before; empty for the first report.
    level: 0 OK, 1 warning, 2 error. silent_s: age of the report. process_state: of a silent node on this
    machine, "ended" or "stopped".
    """

    name: str
    message: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    increments: Mapping[str, int] = field(default_factory=dict)
    image_input: ImageInput | None = None
    report_count: int = 1
    level: int = 0
    silent_s: float = 0.0
    process_state: str = ""

    def number(self, key: str) -> float | None:
        """See `finite_number`."""
        return finite_number(self.values, key)

    def flag(self, key: str) -> bool:
        """True if a value is "True"."""
        return self.values.get(key) == "True"


@dataclass(frozen=True, slots=True)
class PipelineSnapshot:
    """All that the causes are derived from.

    stages: reports in the order of the flow, the source first. namespace: "/front" or "/". silent: stages
    whose last report is too old. missing: expected nodes that have never reported. no_inference_s: time since
    the last inferred frame. unexplained_s: the same, counted from the last cause that was found. Both are
    None without a detector.
    """

    stages: tuple[NodeReport, ...]
    clock_publishers: int = 1
    namespace: str = "/"
    silent: tuple[NodeReport, ...] = ()
    missing: tuple[str, ...] = ()
    no_inference_s: float | None = None
    unexplained_s: float | None = None

    @property
    def image_inputs(self) -> Sequence[tuple[NodeReport, ImageInput]]:
        """The stages that receive images through DDS, each with its topic."""
        return [(stage, stage.image_input) for stage in self.stages if stage.image_input]

    @property
    def shutting_down(self) -> bool:
        """True while a process is about to exit. The process of a finalized node keeps running."""
        return any(
            stage.message == "stopped" and stage.values.get("state") != "finalized" for stage in self.stages
        )

    @property
    def frames_reach_detector(self) -> bool:
        """True if the detector received frames since the report before: all nodes work."""
        received = self.increment("received") > 0 and not self.increment("handed_on")
        return bool(self.stages) and self.stages[-1].name == "detector" and received

    @property
    def nothing_inferred(self) -> bool:
        """True if the last stage has counted frames and none of them was inferred."""
        return bool(self._ledger) and self.increment("inferred") == 0

    def increment(self, key: str) -> int:
        """Frames since the report before with this ledger key, as in "failed.transport"."""
        return self._ledger.get(f"ledger.{key}", 0)

    @property
    def _ledger(self) -> Mapping[str, int]:
        # Only the last stage accounts for every frame.
        return self.stages[-1].increments if self.stages else {}

    def stage(self, name: str) -> NodeReport | None:
        """The report of a stage; None if it does not report."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def node_path(self, node: str) -> str:
        """The full name of a node of this pipeline."""
        return f"{self.namespace.rstrip('/')}/{node}"


def count_of(text: str) -> int | None:
    """A counter or process id in a report; None for anything else, which peers may send."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None


def similar_names(topic: str, others: Sequence[str]) -> list[str]:
    """The three names that resemble the topic's most, best first."""
    similarity = {name: difflib.SequenceMatcher(None, topic, name).ratio() for name in others}
    return sorted(similarity, key=lambda name: -similarity[name])[:3]


class QosMismatch(NamedTuple):
    policy: str
    offered: str
    requested: str


def qos_mismatch(offered: Endpoint, requested: Endpoint) -> QosMismatch | None:
    """The first QoS policy that keeps two endpoints from matching, by DDS's rules of request and offer."""
    for policy, weaker in (
        ("reliability", "best_effort"),
        ("durability", "volatile"),
        ("liveliness", "automatic"),
    ):
        offer, request = getattr(offered, policy), getattr(requested, policy)
        if offer == weaker and request != weaker and "unknown" not in (offer, request):
            return QosMismatch(policy, offer, request)
    if requested.deadline_ns and (not offered.deadline_ns or offered.deadline_ns > requested.deadline_ns):
        return QosMismatch("deadline", f"{offered.deadline_ns or 'none'}", f"{requested.deadline_ns} ns")
    return None
