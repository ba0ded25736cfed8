"""Listens to a running pipeline from outside, as any node can, and tells a watcher in plain terms."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray, LabelInfo

from edge_vision.core.detections import Detections
from edge_vision.errors import ImageError
from edge_vision.nodes.discovery import eager_discovery
from edge_vision.nodes.interface.detection_messages import detections_from_message
from edge_vision.nodes.interface.frame_event_messages import frame_event_from_message
from edge_vision.nodes.interface.image_messages import frame_from_message
from edge_vision.nodes.interface.status_messages import status_values
from edge_vision.nodes.qos import FRAME_EVENTS, LATCHED, LATEST_IMAGE, RESULTS, STATUS
from edge_vision.nodes.run import make_executor

NODES = ("source", "gate", "cascade", "detector")


class PipelineObserver(Protocol):
    """Who is told. All calls come from `PipelineMonitor.spin`."""

    def on_detections(self, stamp_ns: int, frame_id: str, found: Detections, age_ms: float) -> None:
        """A Detection2DArray came. age_ms: from the image's stamp until now, by the system's clock."""

    def on_labels(self, labels: tuple[str, ...]) -> None:
        """label_info came: index = class id."""

    def on_source(self, stamp_ns: int, index: int) -> None:
        """The source sent its image number `index`, from 0 on."""

    def on_status(self, node: str, level: int, text: str, values: dict[str, str]) -> None:
        """A node's `~/status` came. level: 0 OK, 1 warning, 2 error, 3 stale."""

    def on_diagnostics(self, levels: dict[str, tuple[int, str]]) -> None:
        """/diagnostics came: level and sentence of each part."""

    def on_debug_image(self, stamp_ns: int, picture: np.ndarray) -> None:
        """A debug image came, (h, w, 3) uint8 BGR."""


class PipelineMonitor:
    """A node that listens. Use it as a context: it brings rclpy up, and takes it down again.

    debug_images: also take the detector's `~/debug_image`, which the pipeline then has to draw.
    """

    def __init__(self, watcher: PipelineObserver, namespace: str = "", debug_images: bool = False) -> None:
        self._watcher = watcher
        self._namespace = namespace
        self._debug_images = debug_images

    def __enter__(self) -> PipelineMonitor:
        with eager_discovery():
            rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
            self._node = Node("edge_vision_monitor", namespace=self._namespace)
        self._executor = make_executor()
        self._executor.add_node(self._node)
        listen = self._node.create_subscription
        listen(Detection2DArray, "detections", self._on_detections, RESULTS)
        listen(LabelInfo, "label_info", self._on_labels, LATCHED)
        listen(DiagnosticArray, "source_events", self._on_source, FRAME_EVENTS)
        listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, RESULTS)
        for name in NODES:
            listen(DiagnosticArray, f"{name}/status", partial(self._on_status, name), STATUS)
        if self._debug_images:
            listen(Image, "detector/debug_image", self._on_picture, LATEST_IMAGE)
        return self

    def __exit__(self, *exc: object) -> None:
        self._executor.shutdown(0)
        self._node.destroy_node()
        rclpy.try_shutdown()

    def spin(self, duration_s: float) -> None:
        """Take what comes for this long."""
        end_s = time.monotonic() + duration_s
        while (left_s := end_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left_s)

    def _on_detections(self, message: Detection2DArray) -> None:
        stamp_ns = _stamp_ns(message)
        age_ms = (self._node.get_clock().now().nanoseconds - stamp_ns) / 1e6
        found = detections_from_message(message)
        self._watcher.on_detections(stamp_ns, message.header.frame_id, found, age_ms)

    def _on_labels(self, message: LabelInfo) -> None:
        names = {one.class_id: one.class_name for one in message.class_map}
        self._watcher.on_labels(tuple(names.get(i, str(i)) for i in range(max(names, default=-1) + 1)))

    def _on_source(self, message: DiagnosticArray) -> None:
        tick = frame_event_from_message(message)
        if tick.reason.isdigit():
            self._watcher.on_source(tick.stamp_ns, int(tick.reason))

    def _on_status(self, name: str, message: DiagnosticArray) -> None:
        for status in message.status[:1]:
            self._watcher.on_status(name, status.level[0], status.message, status_values(status))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self._watcher.on_diagnostics(_levels(message.status))

    def _on_picture(self, message: Image) -> None:
        try:
            picture = frame_from_message(message, 0).bgr()
        except ImageError:
            return
        self._watcher.on_debug_image(_stamp_ns(message), picture)


def _levels(statuses: Sequence[Any]) -> dict[str, tuple[int, str]]:
    return {status.name: (status.level[0], status.message) for status in statuses}


def _stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)
