"""A publisher that knows at hardly any cost whether anybody listens."""

from __future__ import annotations

import copy
import time
from typing import Any

from rclpy.exceptions import InvalidHandle
from rclpy.node import Node
from rclpy.qos_overriding_options import QoSOverridingOptions

# Who comes to listen is noticed within this time.
LOOK_S = 0.1


class LazyPublisher:
    """A publisher that asks DDS for the count of its listeners ten times a second at most.

    Asking takes 1 us when that code is warm, and 50 us after an inference has swept it from the caches; the
    hot path wants to know several times per frame. DDS's own events would tell at once, but one that comes
    while its publisher is being closed ends the process: rclpy's events executor (7.1) then frees a Python
    object without holding Python's lock.
    """

    def __init__(self, node: Node, kind: type, topic: str, qos: Any, overridable: bool = True) -> None:
        self._node = node
        self._listeners, self._due_s = 0, 0.0
        options = QoSOverridingOptions.with_default_policies() if overridable else None
        # Overriding writes into the profile, which other topics share.
        self._publisher = node.create_publisher(kind, topic, copy.copy(qos), qos_overriding_options=options)

    @property
    def subscription_count(self) -> int:
        """How many subscriptions are matched, or were a moment ago."""
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + LOOK_S
            try:
                self._listeners = int(self._publisher.get_subscription_count())
            except InvalidHandle:  # Another thread closed it just now.
                self._listeners = 0
        return self._listeners

    def publish(self, message: Any) -> None:
        """Publish one message."""
        self._publisher.publish(message)

    def close(self) -> None:
        """Withdraw from the topic."""
        self._node.destroy_publisher(self._publisher)
