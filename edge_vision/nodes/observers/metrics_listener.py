"""Subscribes to what metrics are made of: /diagnostics, and the updater of each pipeline."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from diagnostic_msgs.msg import DiagnosticArray

from edge_vision.core.diagnostic_status import StatusEntry
from edge_vision.nodes.interface.headers import NS_PER_S
from edge_vision.nodes.interface.status_messages import MAX_STATUS_CHARS, status_chars, status_entry
from edge_vision.nodes.observers.diagnostics_listener import DiagnosticsListener
from edge_vision.nodes.transport.qos import STATUS

# Encapsulation header and stamp.
MIN_BYTES = 12


class Metrics(Protocol):
    """What receives the messages; implemented by cli/metrics/exposition.py."""

    @property
    def cameras(self) -> list[str]:
        """The namespaces of the pipelines that have reported."""

    def update(self, statuses: Sequence[StatusEntry]) -> None:
        """Take one message of /diagnostics."""

    def update_updater(self, namespace: str, status: StatusEntry) -> None:
        """Take a status of the updater."""


class MetricsListener(DiagnosticsListener):
    """As the listener of /diagnostics; follows the updater of a pipeline from its first report on."""

    def __init__(self, metrics: Metrics, args: Sequence[str] = ()) -> None:
        super().__init__(self._on_statuses_of_all, args)
        self._metrics = metrics
        self._followed: dict[str, Any] = {}

    def _on_statuses_of_all(self, statuses: Sequence[StatusEntry]) -> None:
        self._metrics.update(statuses)
        for camera in self._metrics.cameras:
            if camera not in self._followed:
                self._followed[camera] = list(self._subscribe(camera))

    def _subscribe(self, camera: str) -> list[Any]:
        topic, receive = f"{camera.rstrip('/')}/updater/status", partial(self._on_updater, camera)
        return [self.node.create_subscription(DiagnosticArray, topic, receive, STATUS)]

    def _age_s(self, stamp_ns: int) -> float:
        return (self.node.get_clock().now().nanoseconds - stamp_ns) / NS_PER_S

    def _on_updater(self, camera: str, message: DiagnosticArray) -> None:
        for status in message.status[:1]:
            if status_chars(status) <= MAX_STATUS_CHARS:
                self._metrics.update_updater(camera, status_entry(status))


def stamp_of(message: bytes) -> int | None:
    """The stamp of a serialized message that begins with a header, in ns; None if it is too short."""
    if len(message) < MIN_BYTES:
        return None
    # CDR: the second byte of the encapsulation header is 1 for little endian.
    sec, nanosec = struct.unpack_from("<iI" if message[1] & 1 else ">iI", message, 4)
    return int(sec * NS_PER_S + nanosec)
