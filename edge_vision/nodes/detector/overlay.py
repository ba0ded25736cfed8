"""Shows the boxes of every frame, inferred or predicted: debug images, and annotations for Foxglove."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from edge_vision.core.detection_overlay import draw_detections, draw_zones
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.geometry.zones import Zones
from edge_vision.nodes.interface.annotation_messages import ImageAnnotations, annotations_message
from edge_vision.nodes.interface.headers import Headed
from edge_vision.nodes.interface.image_messages import ImageWriter, jpeg_message
from edge_vision.nodes.stage_node import StageNode
from edge_vision.nodes.transport.qos import RESULTS, VIEWED_IMAGE

NO_ANNOTATIONS = (
    "tracks/annotations is not published, because foxglove_msgs is not installed: for boxes in Foxglove's "
    "Image panel, install ros-$ROS_DISTRO-foxglove-msgs"
)


class DetectionOverlay:
    """Publishes while open, only what has a subscriber. Any thread may call `show`."""

    def __init__(
        self, node: StageNode, labels: Callable[[], Sequence[str]], zones: Callable[[], Zones]
    ) -> None:
        self._node, self._labels, self._zones = node, labels, zones
        self._lock, self._writer = threading.Lock(), ImageWriter()

    def open(self) -> None:
        """Create the publishers, which the node closes when it is deactivated."""
        create = self._node.open_publisher
        self.image = create(Image, "~/debug_image", VIEWED_IMAGE)
        self.compressed = create(CompressedImage, "~/debug_image/compressed", VIEWED_IMAGE)
        self._annotations = (
            create(ImageAnnotations, "tracks/annotations", RESULTS) if ImageAnnotations else None
        )
        if not ImageAnnotations:
            self._node.structured_log.log("info", NO_ANNOTATIONS, "no_annotations")

    @property
    def _annotated(self) -> bool:
        return self._annotations is not None and self._annotations.subscription_count > 0

    @property
    def is_watched(self) -> bool:
        """Whether any of it has a subscriber."""
        return self._annotated or self.image.subscription_count > 0 or self.compressed.subscription_count > 0

    def show(
        self,
        of: Headed,
        frame: Frame | None,
        found: Detections,
        ids: np.ndarray | None,
        predicted: bool = False,
    ) -> None:
        """Show the boxes of a frame. frame: None if its image is in another process. ids: (n,) or None."""
        if self._annotations and self._annotated:
            labels = self._labels()
            self._annotations.try_publish(lambda: annotations_message(found, of, ids, labels, predicted))
        watched = self.image.subscription_count, self.compressed.subscription_count
        if frame is None or not any(watched):
            return
        with self._lock:
            try:
                image = draw_zones(frame.bgr().copy(), self._zones())
                draw_detections(image, found, self._labels(), ids, predicted)
            except Exception as error:  # For example a skipped compressed frame, which is decoded only here.
                self._node.log_throttled("error", f"cannot draw the debug image: {error}", "debug_image")
                return
            drawn = Frame(image, of.stamp_ns, of.frame_id, "bgr8")
            if watched[0]:
                self.image.try_publish(lambda: self._writer.message(drawn))
            if watched[1]:
                self.compressed.try_publish(lambda: jpeg_message(drawn))
