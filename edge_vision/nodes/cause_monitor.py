"""Gathers the facts for `diagnostics/causes.py`: what the nodes report, and who publishes what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo

from edge_vision.core.running_clock import running_s
from edge_vision.diagnostics.causes import Cause, find_cause
from edge_vision.diagnostics.process_usage import process_state
from edge_vision.diagnostics.snapshot import Endpoint, ImageInput, NodeReport, PipelineSnapshot
from edge_vision.nodes.base_node import OK
from edge_vision.nodes.qos import LATEST_IMAGE

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
# The order of the flow; other watched nodes take no part.
FLOW = ("source", "gate", "cascade", "detector")
# Images are missed for this long before camera_info is looked at.
LOOK_BESIDE_MS = 800.0
# A node reports once a second. One that is silent for longer than this is a cause, even where `stale_ms` is
# more: with the period of the search it is named within 3 s.
NODE_SILENT_MS = 2300.0
# A cause that was away for this long is logged again.
NEWS_S = 60.0


class CauseMonitor:
    """Names why nothing is published. `note` each report, `look` twice a second.

    stale_ms: gives the age above which a report counts no more, where that is below NODE_SILENT_MS. news: is
    called with a new cause. namespace: of the pipeline, by default the node's own. expected: names of nodes
    that have to report.
    """

    def __init__(
        self,
        node: Node,
        stale_ms: Callable[[], float],
        news: Callable[[Cause], None],
        namespace: str | None = None,
        expected: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._node, self._stale_ms, self._news = node, stale_ms, news
        self._namespace = node.get_namespace() if namespace is None else namespace
        self._expected = expected
        self._reports: dict[str, tuple[NodeReport, float]] = {}
        self._here: set[int] = set()
        self._beside: tuple[str, Any] | None = None
        self._beside_count = 0
        self._published_s: dict[str, float] = {}
        self._candidate, self._since_s = "", 0.0
        self._last_s: dict[str, float] = {}
        self._begun_s = self._inferred_s = self._explained_s = running_s()
        self.cause: Cause | None = None

    def begin(self) -> None:
        """Count from now: what was not heard before was not listened for."""
        self._begun_s = self._inferred_s = self._explained_s = running_s()

    @property
    def since_s(self) -> float | None:
        """For how long the cause has been seen."""
        return running_s() - self._since_s if self.cause else None

    def note(self, name: str, message: str, values: dict[str, str], level: int = OK) -> None:
        """A node's report."""
        if name not in FLOW:
            return
        before = self._reports[name][0] if name in self._reports else None
        added = _added(before.values, values) if before else {}
        reports = before.report_count + 1 if before else 1
        self._reports[name] = (NodeReport(name, message, values, added, None, reports, level), running_s())
        pid = _pid(values)
        if pid and pid not in self._here and process_state(pid) == "running":
            self._here.add(pid)
        if before is None or added.get("ledger.inferred"):
            self._inferred_s = running_s()

    def look(self) -> bool:
        """Look for a cause, and tell a new one. True where it has changed."""
        found = find_cause(self._facts())
        now_s = running_s()
        if found and found.name != "nothing_published":
            self._explained_s = now_s
        if (found.name if found else "") != self._candidate:
            self._candidate, self._since_s = found.name if found else "", now_s
        lasting = found is None or now_s - self._since_s >= found.wait_s
        before = self.cause.name if self.cause else ""
        self.cause = found if lasting else None
        changed = (self.cause.name if self.cause else "") != before
        if self.cause:
            self._tell(self.cause, now_s)
        return changed

    def _tell(self, cause: Cause, now_s: float) -> None:
        """Once while it lasts; what comes and goes is no news, what is no fault is told once for all."""
        last_s, self._last_s[cause.name] = self._last_s.get(cause.name), now_s
        if last_s is None or (cause.level != OK and now_s - last_s > NEWS_S):
            self._news(cause)

    def close(self) -> None:
        """Stop listening."""
        if self._beside:
            self._node.destroy_subscription(self._beside[1])
        self._beside, self._beside_count = None, 0
        self._reports.clear()
        self._here.clear()
        self._published_s.clear()
        self.cause, self._candidate = None, ""

    def _facts(self) -> PipelineSnapshot:
        now_s, limit_s = running_s(), min(self._stale_ms(), NODE_SILENT_MS) / 1e3
        heard = [self._reports[name] for name in FLOW if name in self._reports]
        stages = tuple(self._with_image_input(stage) for stage, at_s in heard if now_s - at_s <= limit_s)
        silent = tuple(self._silent(stage, now_s - at_s) for stage, at_s in heard if now_s - at_s > limit_s)
        late = now_s - self._begun_s > limit_s
        missing = tuple(
            name for name in FLOW if late and name in self._expected() and name not in self._reports
        )
        sim_time = any(stage.flag("use_sim_time") for stage in stages)
        clocks = self._node.count_publishers("/clock") if sim_time else 1
        no_inference_s = now_s - self._inferred_s if any(stage.name == FLOW[-1] for stage in stages) else None
        unexplained_s = None if no_inference_s is None else min(no_inference_s, now_s - self._explained_s)
        return PipelineSnapshot(
            stages, clocks, self._namespace, silent, missing, no_inference_s, unexplained_s
        )

    def _silent(self, stage: NodeReport, silent_s: float) -> NodeReport:
        """A stage that does not report, with what became of its process where that ran on this machine."""
        pid = _pid(stage.values)
        return replace(
            stage, silent_s=silent_s, process_state=process_state(pid) if pid in self._here else ""
        )

    def _with_image_input(self, stage: NodeReport) -> NodeReport:
        topic = stage.values.get("image_topic", "")
        if not topic or stage.values.get("state") != "active":
            return stage
        own = [
            endpoint(info)
            for info in self._node.get_subscriptions_info_by_topic(topic)
            if (info.node_name, info.node_namespace) == (stage.name, self._namespace)
        ]
        if not own:  # Not discovered yet, or gone: nothing can be said.
            return stage
        publishers = tuple(endpoint(info) for info in self._node.get_publishers_info_by_topic(topic))
        others = () if publishers else self._other_images()
        beside = self._heard_beside(topic, stage) if publishers and stage.flag("first_stage") else None
        images = ImageInput(topic, own[0], publishers, others, beside, self._published_ms(topic, publishers))
        return replace(stage, image_input=images)

    def _published_ms(self, topic: str, publishers: Sequence[Endpoint]) -> float:
        now_s = running_s()
        if not publishers:
            self._published_s.pop(topic, None)
            return 0.0
        return (now_s - self._published_s.setdefault(topic, now_s)) * 1e3

    def _other_images(self) -> tuple[str, ...]:
        """Image topics of other nodes than the pipeline's own."""
        names = [
            name
            for name, types in self._node.get_topic_names_and_types()
            if any(kind in IMAGE_TYPES for kind in types)
        ]
        return tuple(name for name in names if self._is_foreign(name))

    def _is_foreign(self, topic: str) -> bool:
        publishers = self._node.get_publishers_info_by_topic(topic)
        own = {(name, self._namespace) for name in FLOW}
        return any((info.node_name, info.node_namespace) not in own for info in publishers)

    def _heard_beside(self, topic: str, stage: NodeReport) -> int | None:
        """camera_info messages since images are missed; listens to it only while they are."""
        info = f"{topic.removesuffix('/compressed').rpartition('/')[0]}/camera_info"
        missed = (stage.number("silent_ms") or 0.0) >= LOOK_BESIDE_MS and self._node.count_publishers(
            info
        ) > 0
        if self._beside and (not missed or self._beside[0] != info):
            self._node.destroy_subscription(self._beside[1])
            self._beside, self._beside_count = None, 0
        if missed and not self._beside:
            self._beside = (info, self._node.create_subscription(CameraInfo, info, self._hear, LATEST_IMAGE))
        return self._beside_count if missed else None

    def _hear(self, message: CameraInfo) -> None:
        self._beside_count += 1


def output_status(watch: CauseMonitor) -> tuple[int, str, dict[str, Any]]:
    """Level, sentence and values of the `output` status."""
    cause = watch.cause
    values = {"cause": cause.name if cause else "none", "since_s": watch.since_s if cause else 0.0}
    level, text = (cause.level, f"{cause.name}: {cause.text}") if cause else (OK, "nothing is in the way")
    return level, text, values


def _pid(values: Mapping[str, str]) -> int:
    """The process of a report, 0 where it names none."""
    text = values.get("pid", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _added(before: Mapping[str, str], now: dict[str, str]) -> dict[str, int]:
    """What the counters gained; empty where one ran back, as new books were started or the node anew."""
    gained = {}
    for key, text in now.items():
        if (key.startswith("ledger.") or key == "detections_total") and text.isdigit():
            gained[key] = int(text) - int(before.get(key, "0"))
            if gained[key] < 0 and key != "ledger.in_flight":
                return {}
    return gained


def endpoint(info: Any) -> Endpoint:
    """What rclpy knows of one end of a topic."""
    qos = info.qos_profile
    deadline_ns = qos.deadline.nanoseconds
    return Endpoint(
        f"{info.node_namespace.rstrip('/')}/{info.node_name}",
        info.topic_type,
        qos.reliability.name.lower(),
        qos.durability.name.lower(),
        deadline_ns if 0 < deadline_ns < 2**62 else 0,
        qos.liveliness.name.lower(),
    )
