"""Delivers the detector's results to another node: by reference in one process, otherwise over DDS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.serialization import deserialize_message
from std_msgs.msg import String
from vision_msgs.msg import Detection2DArray, VisionInfo

from edge_vision.core.detections import Detections
from edge_vision.core.geometry.zones import Zones
from edge_vision.core.stamp_check import stamp_to_ns
from edge_vision.errors import EdgeVisionError
from edge_vision.nodes.base_node import BaseNode
from edge_vision.nodes.interface.detection_messages import MAX_MESSAGE_BYTES, detections_from_message
from edge_vision.nodes.transport.qos import LATCHED, RESULTS

MAX_PENDING = 16
"""Frames whose low-score detections are kept until their detections arrive."""


class DetectionFeedback:
    """Calls on_detections per inferred frame, with stamp_ns, detections and low-score detections (None if
    unknown), and on_model when a detector starts or changes its model or thresholds.

    Construct it with the node. Any thread calls the callbacks, which must be quick and must not raise.
    """

    def __init__(
        self,
        node: BaseNode,
        on_detections: Callable[[int, Detections, Detections | None], None],
        on_model: Callable[[], None],
    ) -> None:
        self._node = node
        self._on_detections, self._on_model = on_detections, on_model
        self._subscriptions: list[Any] = []
        self.model_known = False
        """True once a detector of another process has published its model."""
        # By stamp. The detector publishes them before the detections.
        self._low_score: dict[int, Detections] = {}
        self._topic = node.resolve_topic_name("detections")
        node.hub.subscribe(self._topic, on_detections)
        node.hub.subscribe(node.resolve_topic_name("vision_info"), on_model)

    def subscribe(self) -> None:
        """Subscribe on DDS, unless the detector is in this process."""
        if self._node.hub.has_sender(self._topic):
            return
        subscribe = self._node.create_subscription
        self._subscriptions = [
            # Serialized, because rclpy takes 0.1 ms to convert a detection: the size is checked before.
            subscribe(Detection2DArray, "detections_low_score", self._receive_low_score, RESULTS, raw=True),
            subscribe(Detection2DArray, "detections", self._receive_detections, RESULTS, raw=True),
            subscribe(VisionInfo, "vision_info", self._receive_model, LATCHED),
            subscribe(String, "zones", self._receive_zones, LATCHED),
        ]

    def close(self) -> None:
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            self._node.destroy_subscription(subscription)

    def _receive_detections(self, message: bytes) -> None:
        if received := self._converted(message, "detections"):
            stamp_ns, found = received
            self._on_detections(stamp_ns, found, self._low_score.pop(stamp_ns, None))

    def _receive_low_score(self, message: bytes) -> None:
        if received := self._converted(message, "detections_low_score"):
            stamp_ns, low_score = received
            self._low_score[stamp_ns] = low_score
            while len(self._low_score) > MAX_PENDING:
                del self._low_score[next(iter(self._low_score))]

    def _converted(self, serialized: bytes, topic: str) -> tuple[int, Detections] | None:
        try:
            if len(serialized) > MAX_MESSAGE_BYTES:
                raise ValueError(f"expected at most {MAX_MESSAGE_BYTES} bytes, got {len(serialized)}")
            message = deserialize_message(serialized, Detection2DArray)
            return stamp_to_ns(message.header.stamp), detections_from_message(message).valid()
        except (EdgeVisionError, ValueError, RuntimeError) as error:  # RuntimeError: cannot be deserialized.
            self._node.refuse_message(topic, error)
            return None

    def _receive_zones(self, message: String) -> None:
        try:
            self._node.hub.zones = Zones.parse(message.data.splitlines())
        except ValueError as error:
            self._node.refuse_message("zones", error)

    def _receive_model(self, message: VisionInfo) -> None:
        # Published when a detector starts, even with the same model, and for new models and thresholds.
        self.model_known = True
        self._on_model()
