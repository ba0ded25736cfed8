"""A publisher that knows at no cost whether anybody listens."""

from __future__ import annotations

import copy
from typing import Any

from rclpy.event_handler import PublisherEventCallbacks, UnsupportedEventTypeError
from rclpy.node import Node
from rclpy.qos_overriding_options import QoSOverridingOptions


class Outlet:
    """A publisher with the count of its listeners kept by DDS's own events.

    Asking DDS for the count takes 1 us when that code is warm, and 50 us after an inference has swept it
    from the caches; the hot path asks several times per frame.
    """

    def __init__(self, node: Node, kind: type, topic: str, qos: Any, overridable: bool = True) -> None:
        self._node = node
        self._listeners = 0
        self._counted = True
        options = QoSOverridingOptions.with_default_policies() if overridable else None
        # Overriding writes into the profile, which other topics share.
        qos = copy.copy(qos)
        events = PublisherEventCallbacks(matched=self._on_matched)
        try:
            self._publisher = node.create_publisher(
                kind, topic, qos, qos_overriding_options=options, event_callbacks=events
            )
            # An event may have come before this line.
            self._listeners = max(self._listeners, self._publisher.get_subscription_count())
        except UnsupportedEventTypeError:  # Some middlewares have no such event.
            self._counted = False
            self._publisher = node.create_publisher(kind, topic, qos, qos_overriding_options=options)

    def _on_matched(self, info: Any) -> None:
        self._listeners = info.current_count

    @property
    def listeners(self) -> int:
        """How many subscriptions are matched now."""
        return self._listeners if self._counted else int(self._publisher.get_subscription_count())

    def publish(self, message: Any) -> None:
        """Publish one message."""
        self._publisher.publish(message)

    def close(self) -> None:
        """Withdraw from the topic."""
        self._node.destroy_publisher(self._publisher)
