"""Observes running pipelines for the doctor: the ROS graph, /diagnostics, and each node's status."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from edge_vision.core.diagnostic_status import StatusEntry
from edge_vision.diagnostics.snapshot import qos_mismatch
from edge_vision.nodes.interface.specs import DIAGNOSTICS, NODES
from edge_vision.nodes.interface.status_messages import status_entry, status_message, status_values
from edge_vision.nodes.monitoring.cause_monitor import CauseMonitor, output_status
from edge_vision.nodes.monitoring.image_input_probe import endpoint, foreign_image_topics, is_topic_name
from edge_vision.nodes.observers.discovery import observing_node
from edge_vision.nodes.observers.system_view import Pipeline, SystemView, discovery_range
from edge_vision.nodes.transport.qos import RESULTS, STATUS

ARRAY = "diagnostic_msgs/msg/DiagnosticArray"
DETECTIONS = "vision_msgs/msg/Detection2DArray"
UPDATE_PERIOD_S = 0.5
OURS = tuple(spec.name for spec in NODES)


def observe_system(seconds: float, ros_args: Sequence[str] = ()) -> SystemView:
    """Observe for this long. ros_args: from `--ros-args` on. Raises what rclpy raises if it cannot start."""
    with _own_node(ros_args) as (node, executor):
        observer = _Observer(node)
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            executor.spin_once(timeout_sec=min(left_s, UPDATE_PERIOD_S))
            observer.update()
        return observer.view(seconds)


def check_node_starts(ros_args: Sequence[str] = ()) -> None:
    """Start and stop a node. A fault raises an exception, or ends the process."""
    with _own_node(ros_args):
        pass


def _own_node(ros_args: Sequence[str]) -> AbstractContextManager[tuple[Node, Any]]:
    """A node with a unique name, and its executor."""
    name = f"edge_vision_doctor_{os.getpid()}"
    return observing_node(name, ["doctor", *ros_args], start_parameter_services=False, enable_rosout=False)


class _Observer:
    """Subscribes to the status of each node of edge_vision when it is discovered."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._due_s = 0.0
        self._reports: dict[str, dict[str, StatusEntry]] = {}
        self._diagnostics: dict[str, dict[str, StatusEntry]] = {}
        self._foreign: dict[str, StatusEntry] = {}
        self._monitors: dict[str, CauseMonitor] = {}
        self._subscriptions = [
            node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, RESULTS)
        ]

    def update(self) -> None:
        """Read the graph, twice a second."""
        if time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + UPDATE_PERIOD_S
        for namespace, name in self._nodes():
            monitor = self._monitors.get(namespace) or self._add_pipeline(namespace)
            if name not in self._reports[namespace]:
                self._reports[namespace][name] = _SILENT
                receive = partial(self._on_report, namespace, name, monitor)
                topic = f"{namespace.rstrip('/')}/{name}/status"
                self._subscriptions.append(
                    self._node.create_subscription(DiagnosticArray, topic, receive, STATUS)
                )
        for monitor in self._monitors.values():
            monitor.update()

    def _add_pipeline(self, namespace: str) -> CauseMonitor:
        stale_ms = DIAGNOSTICS.param("stale_ms").default
        monitor = CauseMonitor(self._node, lambda: float(stale_ms), lambda cause: None, namespace)
        self._monitors[namespace], self._reports[namespace] = monitor, {}
        return monitor

    def _nodes(self) -> list[tuple[str, str]]:
        """(namespace, name) of each node of edge_vision; repeated if several have the same name."""
        topics = {topic for topic, types in self._node.get_topic_names_and_types() if ARRAY in types}
        found = self._node.get_node_names_and_namespaces()
        return sorted(
            (namespace, name)
            for name, namespace in found
            if name in OURS
            and (topic := f"{namespace.rstrip('/')}/{name}/status") in topics
            and is_topic_name(topic)
        )

    def _on_report(self, namespace: str, name: str, monitor: CauseMonitor, message: DiagnosticArray) -> None:
        for one in message.status[:1]:
            self._reports[namespace][name] = status_entry(one)
            monitor.add_report(name, one.message, status_values(one), one.level[0])

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        statuses = [status_entry(one) for one in message.status]
        ours = {one.local_name or "": one for one in statuses if _is_ours(one)}
        self._foreign.update({one.name: one for one in statuses if not _is_ours(one)})
        if not ours:
            return
        entries = self._diagnostics.setdefault(next(iter(ours.values())).hardware_id, {})
        if len(ours) > 1:  # A complete message. A change of `output` is published alone.
            entries.clear()
        entries.update(ours)

    def view(self, seconds: float) -> SystemView:
        """Everything received so far, and the present graph."""
        nodes = self._nodes()
        others = [
            f"{namespace.rstrip('/')}/{name}"
            for name, namespace in self._node.get_node_names_and_namespaces()
            if (namespace, name) not in nodes and name != self._node.get_name()
        ]
        namespaces = sorted({namespace for namespace, _ in nodes} | set(self._diagnostics))
        return SystemView(
            domain_id=int(self._node.context.get_domain_id()),
            discovery_range=discovery_range(os.environ),
            rmw=str(rclpy.get_rmw_implementation_identifier()),
            duration_s=seconds,
            pipelines=tuple(self._pipeline(one, nodes) for one in namespaces),
            # Hidden nodes are tools, such as the daemon of ros2cli.
            other_nodes=tuple(sorted({one for one in others if "/_" not in one})),
            image_topics=tuple(foreign_image_topics(self._node, [(name, space) for space, name in nodes])),
            other_statuses=tuple(self._foreign.values()),
        )

    def _pipeline(self, namespace: str, nodes: Sequence[tuple[str, str]]) -> Pipeline:
        names = Counter(name for other, name in nodes if other == namespace)
        reports = self._reports.get(namespace, {})
        monitor = self._monitors.get(namespace)
        return Pipeline(
            namespace,
            nodes=tuple(name for name in OURS if name in names),
            duplicates=tuple(name for name, count in names.items() if count > 1),
            reports={name: status for name, status in reports.items() if status is not _SILENT},
            diagnostics=self._diagnostics.get(namespace, {}),
            output=status_entry(status_message("output", namespace, *output_status(monitor)))
            if monitor
            else None,
            unmatched=tuple(self._mismatches(f"{namespace.rstrip('/')}/detections")),
        )

    def _mismatches(self, topic: str) -> list[str]:
        """A sentence per subscription that receives nothing because of its type or QoS."""
        offered = [endpoint(info) for info in self._node.get_publishers_info_by_topic(topic)]
        found = []
        for info in self._node.get_subscriptions_info_by_topic(topic) if offered else ():
            requested = endpoint(info)
            mismatch = qos_mismatch(offered[0], requested)
            if requested.type != DETECTIONS:
                found.append(
                    f"{requested.node} subscribes to {topic} as {requested.type}, which is {DETECTIONS}"
                )
            elif mismatch:
                policy, has, wants = mismatch
                found.append(
                    f"{requested.node} receives nothing from {topic}: it requests {policy} {wants}, "
                    f"offered is {has}: change the {policy} of its subscription"
                )
        return found


def _is_ours(status: StatusEntry) -> bool:
    return bool(status.local_name) and is_topic_name(f"{status.hardware_id.rstrip('/')}/status")


_SILENT = StatusEntry("")
"""Placeholder for a node that has not reported yet."""
