"""Publishes masks, their outlines and key points, for models that report them."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import PolygonInstanceStamped
from sensor_msgs.msg import Image, PointCloud2

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.object_shapes import KeyPoints, Masks, instance_image
from edge_vision.nodes.interface.image_messages import ImageWriter
from edge_vision.nodes.interface.shape_messages import keypoints_message, polygon_message
from edge_vision.nodes.stage_node import StageNode
from edge_vision.nodes.transport.lazy_publisher import LazyPublisher
from edge_vision.nodes.transport.qos import FRAME_EVENTS, RESULTS

_TOPICS: dict[str, dict[str, tuple[type, Any]]] = {
    Masks.kind: {"masks": (Image, RESULTS), "masks/polygons": (PolygonInstanceStamped, FRAME_EVENTS)},
    KeyPoints.kind: {"keypoints": (PointCloud2, RESULTS)},
}


class ShapeOutput:
    """Publishes what has a subscriber, on topics that exist from the first model of their kind on.

    The worker calls `publish` and `report_failure`, the executor the others.
    """

    def __init__(self, node: StageNode) -> None:
        self._node = node
        self._publishers: dict[str, LazyPublisher] = {}
        self._writer = ImageWriter()
        self._degenerate = self._failed = 0

    def enable(self, kind: str) -> None:
        """Create the publishers for a model's `shape_kind`, which the node closes when it is deactivated."""
        for topic, (message, qos) in _TOPICS.get(kind, {}).items():
            if topic not in self._publishers:
                self._publishers[topic] = self._node.open_publisher(message, topic, qos)

    def close(self) -> None:
        self._publishers = {}

    def has_subscriber(self, topic: str) -> bool:
        publisher = self._publishers.get(topic)
        return publisher is not None and publisher.subscription_count > 0

    @property
    def wants_masks(self) -> bool:
        return bool(self._publishers) and any(map(self.has_subscriber, _TOPICS[Masks.kind]))

    def publish(self, frame: Frame, found: Detections) -> None:
        """Publish the shapes of a frame's detections. Does not raise."""
        shapes = found.shapes
        if isinstance(shapes, KeyPoints) and self.has_subscriber("keypoints"):
            self._publishers["keypoints"].try_publish(lambda: keypoints_message(shapes.rows, frame))
        elif isinstance(shapes, Masks) and self.wants_masks:
            self._publish_masks(frame, found, shapes)

    def _publish_masks(self, frame: Frame, found: Detections, masks: Masks) -> None:
        regions = masks.regions(found.xyxy_px)
        if self.has_subscriber("masks"):
            pixels = instance_image(regions, (frame.width_px, frame.height_px))
            image = Frame(pixels, frame.stamp_ns, frame.frame_id, "mono16")
            self._publishers["masks"].try_publish(lambda: self._writer.message(image))
        if self.has_subscriber("masks/polygons"):
            for number, region in enumerate(regions, 1):
                self._publish_polygon(frame, region.outline(), number)

    def _publish_polygon(self, frame: Frame, outline: np.ndarray | None, number: int) -> None:
        if outline is None:
            self._degenerate += 1
        else:
            publisher = self._publishers["masks/polygons"]
            publisher.try_publish(lambda: polygon_message(outline, number, frame))

    def report_failure(self, error: str) -> None:
        """Count and log a frame whose masks cannot be decoded; "" for none."""
        if error:
            self._failed += 1
            self._node.log_throttled("error", f"the frame's boxes have no masks: {error}", "masks")

    def status_values(self) -> dict[str, Any]:
        return {"degenerate_masks_total": self._degenerate, "failed_masks_total": self._failed}
