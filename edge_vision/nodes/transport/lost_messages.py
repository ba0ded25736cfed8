"""Counts the messages of a subscription that the middleware has lost."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from rclpy.event_handler import QoSSubscriptionEventType, UnsupportedEventTypeError
from rclpy.impl.implementation_singleton import rclpy_implementation


class LostMessages:
    """Polls DDS's event "message lost" instead of receiving it by a callback: an event that arrives while its
    endpoint is being destroyed crashes the process (rclpy's events executor, 7.1).
    """

    def __init__(self, subscription: Any) -> None:
        self._event: Any = None
        with suppress(UnsupportedEventTypeError):  # Of some middlewares.
            kind = QoSSubscriptionEventType.RCL_SUBSCRIPTION_MESSAGE_LOST
            self._event = rclpy_implementation.EventHandle(subscription.handle, kind)

    def take(self) -> int:
        """The number of messages lost since the last call."""
        info = self._event.take_event() if self._event else None
        return int(info.total_count_change) if info else 0

    def close(self) -> None:
        """Before the subscription is destroyed."""
        event, self._event = self._event, None
        if event:
            event.destroy_when_not_in_use()
