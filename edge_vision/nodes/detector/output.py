"""The topics of the detector node that depend on its model: detections, model and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from std_msgs.msg import String
from vision_msgs.msg import Detection2DArray, LabelInfo, VisionInfo

from edge_vision.backends.serving.loaded_model import LoadedModel
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.detect.detector import Detector
from edge_vision.nodes.interface.cdr import best_encoder
from edge_vision.nodes.interface.detection_messages import label_info_message, vision_info_message
from edge_vision.nodes.stage_node import StageNode
from edge_vision.nodes.transport.lazy_publisher import OptionalPublisher
from edge_vision.nodes.transport.qos import LATCHED, RESULTS


class DetectionOutput:
    """Publishes while open. Any thread may call."""

    def __init__(self, node: StageNode) -> None:
        self._node = node
        self._encode = best_encoder()
        self.low_score = OptionalPublisher(node, Detection2DArray, "detections_low_score", RESULTS)

    def open(self) -> None:
        """Create the publishers, which the node closes when it is deactivated."""
        create = self._node.open_publisher
        self._detections = create(Detection2DArray, "detections", RESULTS)
        self._label_info = create(LabelInfo, "label_info", LATCHED)
        self._vision_info = create(VisionInfo, "vision_info", LATCHED)
        self._zones = create(String, "zones", LATCHED)

    def publish_model(self, model: LoadedModel[Detector], version: int) -> None:
        """Publish the labels and the name, version and hash of the model. version: counts loaded models."""
        bundle, threshold = model.bundle, model.runner.thresholds.score_threshold
        method, location = f"{bundle.name} {bundle.version}", f"sha256:{bundle.sha256}"
        self._label_info.try_publish(lambda: label_info_message(bundle.labels, threshold))
        self._vision_info.try_publish(lambda: vision_info_message(method, location, version))

    def publish_zones(self, zones: Sequence[str]) -> None:
        """Publish the zones, one per line, for a gate in another process."""
        lines = [" ".join(zone.split()) for zone in zones]
        self._zones.try_publish(lambda: String(data="\n".join(lines)))

    def publish_detections(self, frame: Frame, found: Detections, ids: np.ndarray | None) -> Any:
        """Publish the detections of a frame, and return the message, which may be serialized. ids: (n,) of
        their tracks. Raises what rclpy raises."""
        message = self._encode(found, frame, ids)
        self._detections.publish(message)
        return message

    def publish_low_score(self, frame: Frame, low_score: Detections | None) -> None:
        """Publish low-score detections, if there are any and the topic has a subscriber."""
        publisher = self.low_score.current
        if publisher is not None and low_score is not None and publisher.subscription_count:
            publisher.try_publish(lambda: self._encode(low_score, frame, None))
