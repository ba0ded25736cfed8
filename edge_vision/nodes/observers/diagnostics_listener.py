"""Subscribes to /diagnostics only, for the terminal view."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from diagnostic_msgs.msg import DiagnosticArray

from edge_vision.core.diagnostic_status import StatusEntry
from edge_vision.nodes.interface.status_messages import MAX_STATUS_CHARS, status_chars, status_entry
from edge_vision.nodes.observers.discovery import observing_node
from edge_vision.nodes.transport.qos import RESULTS


class DiagnosticsListener:
    """Passes each message on as plain values. Use it as a context manager: it starts and stops rclpy.

    args: the command line, as in `--ros-args -r /diagnostics:=/robot/diagnostics`; RuntimeError if it
    is invalid. node: the subscribing node, from `__enter__` on.
    """

    def __init__(
        self, on_statuses: Callable[[Sequence[StatusEntry]], None], args: Sequence[str] = ()
    ) -> None:
        self._on_statuses = on_statuses
        self._args = list(args)

    def __enter__(self) -> DiagnosticsListener:
        self._session = observing_node("edge_vision_top", self._args, start_parameter_services=False)
        self.node, self._executor = self._session.__enter__()
        self._subscription = self.node.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, RESULTS
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self._session.__exit__(None, None, None)

    def spin(self, duration_s: float) -> None:
        """Wait this long for one message."""
        self._executor.spin_once(timeout_sec=duration_s)

    @property
    def domain(self) -> int:
        return int(self.node.context.get_domain_id())

    @property
    def publishers(self) -> list[str]:
        """The names of the nodes that publish the topic, without those that have ended."""
        found = self.node.get_publishers_info_by_topic(self._subscription.topic_name)
        names = {f"{one.node_namespace.rstrip('/')}/{one.node_name}" for one in found}
        return sorted(name for name in names if not name.endswith("/_NODE_NAME_UNKNOWN_"))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        bounded = (one for one in message.status if status_chars(one) <= MAX_STATUS_CHARS)
        self._on_statuses([status_entry(one) for one in bounded])
