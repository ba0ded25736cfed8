"""Listens to what runs, for the doctor: the graph, /diagnostics, and each node's own report."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from edge_vision.core.diagnostic_status import StatusEntry
from edge_vision.diagnostics.snapshot import qos_mismatch
from edge_vision.diagnostics.system_view import Pipeline, SystemView, discovery_range
from edge_vision.nodes.cause_monitor import IMAGE_TYPES, CauseMonitor, endpoint, output_status
from edge_vision.nodes.discovery import eager_discovery
from edge_vision.nodes.interface.specs import DIAGNOSTICS, NODES
from edge_vision.nodes.interface.status_messages import status_message, status_values
from edge_vision.nodes.qos import RESULTS, STATUS
from edge_vision.nodes.run import make_executor

ARRAY = "diagnostic_msgs/msg/DiagnosticArray"
DETECTIONS = "vision_msgs/msg/Detection2DArray"
LOOK_PERIOD_S = 0.5
OURS = tuple(spec.name for spec in NODES)


def observe_system(seconds: float, ros_args: Sequence[str] = ()) -> SystemView:
    """Listen for this long. ros_args: from `--ros-args` on. Raises whatever keeps rclpy from starting."""
    with _own_node(ros_args) as node:
        executor = make_executor()
        try:
            executor.add_node(node)
            listener = _Listener(node)
            end_s = time.monotonic() + seconds
            while (left_s := end_s - time.monotonic()) > 0:
                executor.spin_once(timeout_sec=min(left_s, LOOK_PERIOD_S))
                listener.turn()
            return listener.seen(seconds)
        finally:
            executor.shutdown(0)


def check_node_starts(ros_args: Sequence[str] = ()) -> None:
    """Start a node and end it. What is wrong raises, or ends the process."""
    with _own_node(ros_args):
        pass


@contextlib.contextmanager
def _own_node(ros_args: Sequence[str]) -> Iterator[Node]:
    """rclpy up, with a node whose name no other doctor has."""
    name = f"edge_vision_doctor_{os.getpid()}"
    try:
        with eager_discovery():
            rclpy.init(args=["doctor", *ros_args], signal_handler_options=SignalHandlerOptions.NO)
            node = Node(name, start_parameter_services=False, enable_rosout=False)
        try:
            yield node
        finally:
            node.destroy_node()
    finally:
        rclpy.try_shutdown()


class _Listener:
    """Follows each node of ours from when it is found."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._due_s = 0.0
        self._reports: dict[str, dict[str, StatusEntry]] = {}
        self._told: dict[str, dict[str, StatusEntry]] = {}
        self._foreign: dict[str, StatusEntry] = {}
        self._watches: dict[str, CauseMonitor] = {}
        self._listening = [
            node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, RESULTS)
        ]

    def turn(self) -> None:
        """Look at the graph twice a second."""
        if time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + LOOK_PERIOD_S
        for namespace, name in self._nodes():
            watch = self._watches.get(namespace) or self._watch(namespace)
            if name not in self._reports[namespace]:
                self._reports[namespace][name] = _SILENT
                hear = partial(self._on_report, namespace, name, watch)
                topic = f"{namespace.rstrip('/')}/{name}/status"
                self._listening.append(self._node.create_subscription(DiagnosticArray, topic, hear, STATUS))
        for watch in self._watches.values():
            watch.look()

    def _watch(self, namespace: str) -> CauseMonitor:
        stale_ms = DIAGNOSTICS.param("stale_ms").default
        watch = CauseMonitor(self._node, lambda: float(stale_ms), lambda cause: None, namespace)
        self._watches[namespace], self._reports[namespace] = watch, {}
        return watch

    def _nodes(self) -> list[tuple[str, str]]:
        """(namespace, name) of each node of ours, again for each further one of the same name."""
        topics = {topic for topic, types in self._node.get_topic_names_and_types() if ARRAY in types}
        found = self._node.get_node_names_and_namespaces()
        return sorted(
            (namespace, name)
            for name, namespace in found
            if name in OURS and f"{namespace.rstrip('/')}/{name}/status" in topics
        )

    def _on_report(self, namespace: str, name: str, watch: CauseMonitor, message: DiagnosticArray) -> None:
        for one in message.status[:1]:
            self._reports[namespace][name] = _plain(one)
            watch.note(name, one.message, status_values(one), one.level[0])

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        statuses = [_plain(one) for one in message.status]
        ours = {one.local_name: one for one in statuses if one.local_name}
        self._foreign.update({one.name: one for one in statuses if not one.local_name})
        if not ours:
            return
        told = self._told.setdefault(next(iter(ours.values())).hardware_id, {})
        if len(ours) > 1:  # All there is; `output` alone comes in between, when it changes.
            told.clear()
        told.update(ours)

    # What it comes to.
    def seen(self, seconds: float) -> SystemView:
        """All that was heard, and the graph as it is now."""
        nodes = self._nodes()
        others = [
            f"{namespace.rstrip('/')}/{name}"
            for name, namespace in self._node.get_node_names_and_namespaces()
            if (namespace, name) not in nodes and name != self._node.get_name()
        ]
        namespaces = sorted({namespace for namespace, _ in nodes} | set(self._told))
        return SystemView(
            domain_id=int(self._node.context.get_domain_id()),
            discovery_range=discovery_range(os.environ),
            rmw=str(rclpy.get_rmw_implementation_identifier()),
            duration_s=seconds,
            pipelines=tuple(self._pipeline(one, nodes) for one in namespaces),
            # Hidden ones are tools, as the daemon of ros2cli.
            other_nodes=tuple(sorted({one for one in others if "/_" not in one})),
            image_topics=tuple(self._images(nodes)),
            other_statuses=tuple(self._foreign.values()),
        )

    def _pipeline(self, namespace: str, nodes: Sequence[tuple[str, str]]) -> Pipeline:
        names = Counter(name for place, name in nodes if place == namespace)
        heard = self._reports.get(namespace, {})
        watch = self._watches.get(namespace)
        return Pipeline(
            namespace,
            nodes=tuple(name for name in OURS if name in names),
            duplicates=tuple(name for name, count in names.items() if count > 1),
            reports={name: status for name, status in heard.items() if status is not _SILENT},
            diagnostics=self._told.get(namespace, {}),
            output=_plain(status_message("output", namespace, *output_status(watch))) if watch else None,
            unmatched=tuple(self._unfit(f"{namespace.rstrip('/')}/detections")),
        )

    def _images(self, nodes: Sequence[tuple[str, str]]) -> list[str]:
        """Topics with images that somebody else publishes."""
        return [
            topic
            for topic, types in self._node.get_topic_names_and_types()
            if any(kind in IMAGE_TYPES for kind in types)
            and any(
                (one.node_namespace, one.node_name) not in nodes
                for one in self._node.get_publishers_info_by_topic(topic)
            )
        ]

    def _unfit(self, topic: str) -> list[str]:
        """Listeners that get nothing for their type or their QoS, a sentence each."""
        offered = [endpoint(info) for info in self._node.get_publishers_info_by_topic(topic)]
        found = []
        for info in self._node.get_subscriptions_info_by_topic(topic) if offered else ():
            asked = endpoint(info)
            differing = qos_mismatch(offered[0], asked)
            if asked.type != DETECTIONS:
                found.append(f"{asked.node} subscribes to {topic} as {asked.type}, which is {DETECTIONS}")
            elif differing:
                policy, has, wants = differing
                found.append(
                    f"{asked.node} receives nothing from {topic}: it requests {policy} {wants}, offered is "
                    f"{has}: change the {policy} of its subscription"
                )
        return found


_SILENT = StatusEntry("")
"""Stands for a node that has not reported yet."""


def _plain(status: DiagnosticStatus) -> StatusEntry:
    return StatusEntry(
        status.name, status.hardware_id, status.level[0], status.message, status_values(status)
    )
