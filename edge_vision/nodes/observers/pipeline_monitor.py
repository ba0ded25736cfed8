"""Subscribes to a running pipeline from outside, and passes its results to an observer as plain values."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from vision_msgs.msg import Detection2DArray, LabelInfo

from edge_vision.core.detections import Detections
from edge_vision.nodes.interface.detection_messages import detections_from_message
from edge_vision.nodes.interface.frame_event_messages import frame_event_from_message
from edge_vision.nodes.interface.status_messages import status_values
from edge_vision.nodes.observers.discovery import observing_node
from edge_vision.nodes.transport.qos import FRAME_EVENTS, LATCHED, RESULTS, STATUS

NODES = ("source", "gate", "cascade", "detector")


class PipelineObserver(Protocol):
    """Receives the results, all from within `PipelineMonitor.spin`."""

    def on_detections(self, stamp_ns: int, frame_id: str, found: Detections, age_ms: float) -> None:
        """Detections of a frame. age_ms: time since the image's stamp, by the system clock."""

    def on_tracks(self, stamp_ns: int, found: Detections) -> None:
        """Inferred or predicted boxes of a frame."""

    def on_labels(self, labels: tuple[str, ...]) -> None:
        """Class names, by class id."""

    def on_source(self, stamp_ns: int, index: int) -> None:
        """The source published its image number `index`, starting at 0."""

    def on_status(self, node: str, level: int, text: str, values: dict[str, str]) -> None:
        """The status of a node. level: 0 OK, 1 warning, 2 error, 3 stale."""

    def on_diagnostics(self, levels: dict[str, tuple[int, str]]) -> None:
        """Level and text of each status on /diagnostics, by name."""

    def on_gate_event(self, stamp_ns: int, passed: bool, reason: str) -> None:
        """The gate's decision on a frame."""


class PipelineMonitor:
    """A node that subscribes. Use it as a context manager: it starts and stops rclpy.

    observers: by the namespace of their pipeline, "" for the one without. tracked: also subscribe to
    `tracks`. gate_events: also subscribe to `gate_events`.
    """

    def __init__(
        self, observers: Mapping[str, PipelineObserver], tracked: bool = False, gate_events: bool = False
    ) -> None:
        self._observers = observers
        self._tracked, self._gate_events = tracked, gate_events

    def __enter__(self) -> PipelineMonitor:
        self._session = observing_node("edge_vision_monitor")
        self._node, self._executor = self._session.__enter__()
        for namespace, observer in self._observers.items():
            self._subscribe(observer, f"/{namespace}/".replace("//", "/"))
        return self

    def _subscribe(self, observer: PipelineObserver, prefix: str) -> None:
        subscribe, receiver = self._node.create_subscription, _Receiver(self._node, observer)
        subscribe(Detection2DArray, f"{prefix}detections", receiver.on_detections, RESULTS)
        subscribe(LabelInfo, f"{prefix}label_info", receiver.on_labels, LATCHED)
        subscribe(DiagnosticArray, f"{prefix}source_events", receiver.on_source, FRAME_EVENTS)
        subscribe(DiagnosticArray, "/diagnostics", receiver.on_diagnostics, RESULTS)
        for name in NODES:
            on_status = partial(receiver.on_status, name)
            subscribe(DiagnosticArray, f"{prefix}{name}/status", on_status, STATUS)
        if self._tracked:
            subscribe(Detection2DArray, f"{prefix}tracks", receiver.on_tracks, RESULTS)
        if self._gate_events:
            subscribe(DiagnosticArray, f"{prefix}gate_events", receiver.on_gate_event, FRAME_EVENTS)

    def __exit__(self, *exc: object) -> None:
        self._session.__exit__(None, None, None)

    def spin(self, duration_s: float) -> None:
        """Receive for this long."""
        end_s = time.monotonic() + duration_s
        while (left_s := end_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left_s)


class _Receiver:
    """Converts the messages of one pipeline for its observer."""

    def __init__(self, node: Node, observer: PipelineObserver) -> None:
        self._node, self._observer = node, observer

    def on_detections(self, message: Detection2DArray) -> None:
        stamp_ns = _stamp_ns(message)
        age_ms = (self._node.get_clock().now().nanoseconds - stamp_ns) / 1e6
        try:
            found = detections_from_message(message)
        except ValueError:
            return
        self._observer.on_detections(stamp_ns, message.header.frame_id, found, age_ms)

    def on_tracks(self, message: Detection2DArray) -> None:
        with contextlib.suppress(ValueError):
            self._observer.on_tracks(_stamp_ns(message), detections_from_message(message))

    def on_labels(self, message: LabelInfo) -> None:
        names = {one.class_id: one.class_name for one in message.class_map}
        self._observer.on_labels(tuple(names.get(i, str(i)) for i in range(max(names, default=-1) + 1)))

    def on_source(self, message: DiagnosticArray) -> None:
        try:
            event = frame_event_from_message(message)
        except ValueError:
            return
        if event.reason.isdecimal():
            self._observer.on_source(event.stamp_ns, int(event.reason))

    def on_status(self, name: str, message: DiagnosticArray) -> None:
        for status in message.status[:1]:
            self._observer.on_status(name, status.level[0], status.message, status_values(status))

    def on_diagnostics(self, message: DiagnosticArray) -> None:
        self._observer.on_diagnostics(_levels(message.status))

    def on_gate_event(self, message: DiagnosticArray) -> None:
        with contextlib.suppress(ValueError):
            event = frame_event_from_message(message)
            self._observer.on_gate_event(event.stamp_ns, not event.fate, event.reason)


def _levels(statuses: Sequence[Any]) -> dict[str, tuple[int, str]]:
    return {status.name: (status.level[0], status.message) for status in statuses}


def _stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)
