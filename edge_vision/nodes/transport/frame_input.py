"""Receives the images and frame events of a stage over DDS, and opens their accounts in the ledger."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.event_handler import QoSSubscriptionEventType, UnsupportedEventTypeError
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image

from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent, FrameEventJoin
from edge_vision.core.stamp_check import NS_PER_S, stamp_to_ns
from edge_vision.errors import ImageError
from edge_vision.nodes.base_node import BaseNode
from edge_vision.nodes.interface.frame_event_messages import frame_event_from_message
from edge_vision.nodes.interface.image_messages import frame_from_message
from edge_vision.nodes.transport.qos import FRAME_EVENTS, LATEST_IMAGE

ImageMessage: TypeAlias = Image | CompressedImage
_NO_IMAGE = np.zeros((1, 1), np.uint8)


class FrameInput:
    """The DDS input of one stage. Only the executor calls it.

    image_topic, event_topic: as in the stage's spec; event_topic None = the stage is the first of the chain.
    on_frame: called with each frame and its event, None for a frame without one; on_refused: with a
    placeholder for an image that cannot be read, and the reason; on_event: with each event of the previous
    stages.

    format_changes: images so far that differ from the one before in frame_id, size or encoding. lost_images:
    images so far that the middleware has lost. image_bytes: size of the last image.
    """

    def __init__(
        self,
        node: BaseNode,
        image_topic: str,
        event_topic: str | None,
        on_frame: Callable[[Frame, FrameEvent | None], None],
        on_refused: Callable[[Frame, ImageError], None],
        on_event: Callable[[FrameEvent], None],
    ) -> None:
        self._node, self._ledger = node, node.hub.ledger
        self._image_topic, self._event_topic = image_topic, event_topic
        self._resolved_topic = node.resolve_topic_name(image_topic)
        self._on_frame, self._on_refused, self._on_event = on_frame, on_refused, on_event
        self._subscriptions: list[Any] = []
        self._join = FrameEventJoin()
        self._format: tuple[Any, ...] = ()
        self._lost: LostMessages | None = None
        self.format_changes = self.lost_images = self.image_bytes = 0

    @property
    def topic(self) -> str:
        """The image topic that is subscribed to, "" if none is."""
        subscriptions = self._subscriptions
        return str(subscriptions[0].topic_name) if subscriptions else ""

    @property
    def publisher_count(self) -> int:
        """The number of publishers of that topic."""
        topic = self.topic
        return int(self._node.count_publishers(topic)) if topic else 0

    @property
    def max_pixels(self) -> float:
        """Size above which an image is refused."""
        return float(self._node.params["max_image_megapixels"]) * 1e6

    def subscribe(self) -> None:
        """Subscribe, unless a node of this process sends the frames or the subscriptions exist."""
        hub, node = self._node.hub, self._node
        if self._subscriptions or hub.has_sender(self._resolved_topic):
            return
        raw = node.params["image_transport"] == "raw"
        options = QoSOverridingOptions.with_default_policies()
        self._subscriptions = [
            node.create_subscription(
                Image if raw else CompressedImage,
                self._resolved_topic if raw else self._compressed_topic(),
                self._receive_image,
                copy.copy(LATEST_IMAGE),
                qos_overriding_options=options,
            )
        ]
        self._lost = LostMessages(self._subscriptions[0])
        hub.set_dds_subscriptions(self._resolved_topic, int(raw))
        if self._event_topic:
            events = node.create_subscription(
                DiagnosticArray, self._event_topic, self._receive_event, FRAME_EVENTS
            )
            self._subscriptions.append(events)

    def _compressed_topic(self) -> str:
        """The image topic with /compressed, which a remapping of the image topic moves along."""
        topic = f"{self._image_topic}/compressed"
        resolved = str(self._node.resolve_topic_name(topic))
        is_remapped = resolved != self._node.resolve_topic_name(topic, only_expand=True)
        return resolved if is_remapped else f"{self._resolved_topic}/compressed"

    def close(self) -> None:
        """Unsubscribe, and settle the announced images that have not arrived."""
        if self._lost:
            self._lost.close()
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            self._node.destroy_subscription(subscription)
        self._node.hub.set_dds_subscriptions(self._resolved_topic, 0)
        self._settle_lost(self._join.close())

    def settle_overdue(self) -> None:
        """Settle the announced images that have been missing for too long, and count lost ones."""
        self.lost_images += self._lost.take() if self._lost else 0
        self._settle_lost(self._join.expire(time.monotonic_ns()))

    def _settle_lost(self, seqs: list[int] | tuple[int, ...]) -> None:
        for seq in seqs:
            self._ledger.settle(seq, "failed", "transport")

    def _receive_image(self, message: ImageMessage) -> None:
        if not self._subscriptions or self._node.hub.has_sender(self._resolved_topic):
            return
        self._count_format_change(message)
        self.image_bytes = len(message.data)
        seq, event = self._open_account(message)
        try:
            frame = frame_from_message(message, seq, self.max_pixels)
        except ImageError as error:
            self._on_refused(_placeholder(message, seq), error)
        else:
            self._on_frame(frame, event)

    def _count_format_change(self, message: ImageMessage) -> None:
        given = (message.width, message.height, message.encoding) if isinstance(message, Image) else ()
        before, self._format = self._format, (message.header.frame_id, *given)
        self.format_changes += bool(before) and before != self._format

    def _open_account(self, message: ImageMessage) -> tuple[int, FrameEvent | None]:
        """The account of an image, and its event if it was announced."""
        if self._event_topic:
            stamp = message.header.stamp
            joined = self._join.add_image(stamp.sec * NS_PER_S + stamp.nanosec, message.header.frame_id)
            self._settle_lost(joined.lost)
            if joined.seq is not None:
                return joined.seq, joined.event
        seq = self._node.hub.next_seq()
        self._ledger.receive(seq, self._node.spec.name)
        return seq, None

    def _receive_event(self, message: DiagnosticArray) -> None:
        """Account for a frame of the previous stages, which run in other processes."""
        if not self._subscriptions:
            return
        try:
            event = frame_event_from_message(message)
        except ValueError as error:
            self._node.refuse_message(str(self._event_topic), error)
            return
        seq = self._node.hub.next_seq()
        event = event._replace(seq=seq)
        if event.fate:
            self._ledger.receive(seq, event.stage)
            self._ledger.settle(seq, event.fate, event.reason)
        elif self._join.add_event(event, seq, time.monotonic_ns()):
            self._ledger.receive(seq, "transport")
        self._on_event(event)


def _placeholder(message: ImageMessage, seq: int) -> Frame:
    """A frame with the header of an image that cannot be read."""
    try:
        stamp_ns = stamp_to_ns(message.header.stamp)
    except ImageError:
        stamp_ns = 0
    return Frame(_NO_IMAGE, stamp_ns, message.header.frame_id, "mono8", seq)


MAX_LOST_MESSAGES = 1_000_000


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
        lost = int(info.total_count_change) if info else 0
        # Fast DDS reports 2 ** 31 when the sequence numbers of a publisher start again.
        return lost if 0 <= lost < MAX_LOST_MESSAGES else 0

    def close(self) -> None:
        """Before the subscription is destroyed."""
        event, self._event = self._event, None
        if event:
            event.destroy_when_not_in_use()
