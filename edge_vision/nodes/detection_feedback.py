"""What a node hears of the detector: by reference in one process, over DDS from another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vision_msgs.msg import Detection2DArray, VisionInfo

from edge_vision.core.detections import Detections
from edge_vision.errors import EdgeVisionError
from edge_vision.nodes.base_node import BaseNode
from edge_vision.nodes.interface.detection_messages import detections_from_message
from edge_vision.nodes.interface.headers import stamp_to_ns
from edge_vision.nodes.qos import LATCHED, RESULTS

MOST_HINTS = 16
"""Frames whose low-score detections came, and whose detections did not."""


class DetectionFeedback:
    """Delivers the detector's results by stamp, and reports new detectors, models and thresholds.

    Construct it with the node. found and begun may be called by any thread; they must be quick and not raise.
    """

    def __init__(
        self,
        node: BaseNode,
        found: Callable[[int, Detections, Detections | None], None],
        begun: Callable[[], None],
    ) -> None:
        self._node = node
        self._found, self._begun = found, begun
        self._subscriptions: list[Any] = []
        self.model_known = False
        """True once a detector of another process has said which model it runs."""
        # By stamp, until what was found on it comes; the detector publishes them first.
        self._low_score: dict[int, Detections] = {}
        self._topic = node.resolve_topic_name("detections")
        self._hints_topic = node.resolve_topic_name("detections_low_score")
        node.hub.subscribe(self._topic, found)
        node.hub.subscribe(node.resolve_topic_name("vision_info"), begun)

    def subscribe(self) -> None:
        """Listen on DDS, unless the detector is in this process."""
        if self._node.hub.has_sender(self._topic):
            return
        subscribe = self._node.create_subscription
        self._subscriptions = [
            subscribe(Detection2DArray, "detections_low_score", self._on_hints, RESULTS),
            subscribe(Detection2DArray, "detections", self._on_detections, RESULTS),
            subscribe(VisionInfo, "vision_info", self._on_info, LATCHED),
        ]

    def close(self) -> None:
        """Stop listening on DDS."""
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_detections(self, message: Detection2DArray) -> None:
        told = self._understood(message, self._topic)
        if told is not None:
            stamp_ns, found = told
            self._found(stamp_ns, found, self._low_score.pop(stamp_ns, None))

    def _on_hints(self, message: Detection2DArray) -> None:
        told = self._understood(message, self._hints_topic)
        if told is not None:
            stamp_ns, low_score = told
            self._low_score[stamp_ns] = low_score
            while len(self._low_score) > MOST_HINTS:
                del self._low_score[next(iter(self._low_score))]

    def _understood(self, message: Detection2DArray, topic: str) -> tuple[int, Detections] | None:
        try:
            return stamp_to_ns(message.header.stamp), detections_from_message(message).valid()
        except (EdgeVisionError, ValueError) as error:  # A stamp that is none, a class id that is no number.
            text = f"a message on {topic} is not understood: {error}. Who else publishes there?"
            self._node.log_throttled("error", text, "feedback")
            return None

    def _on_info(self, message: VisionInfo) -> None:
        # A detector says this when it begins, the same as before after a restart, and when it sees otherwise:
        # with another model, with other thresholds.
        self.model_known = True
        self._begun()
