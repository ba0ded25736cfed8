"""Compares a downloaded model with the one that serves, on frames that the detector infers anyway."""

from __future__ import annotations

from functools import partial
from typing import Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray, LabelInfo

from edge_vision.core.frame import Frame
from edge_vision.core.running_clock import running_s
from edge_vision.core.stamp_check import stamp_to_ns
from edge_vision.errors import ImageError
from edge_vision.nodes.base_node import BaseNode
from edge_vision.nodes.interface.detection_messages import detections_from_message
from edge_vision.nodes.interface.image_messages import frame_from_message, jpeg_message
from edge_vision.nodes.transport.qos import LATCHED, LATEST_IMAGE, RESULTS
from edge_vision.updates.probation import Verdict
from edge_vision.updates.shadow import ShadowTest
from edge_vision.updates.shadow_process import ShadowJob, ShadowProcess

PERIOD_S = 1.0
"""At most one frame in this time."""
KEPT = 20
MAX_FAILURES = 3
"""Ends of the child: one may be for want of memory."""


class ShadowComparison:
    """One candidate. The executor calls it; the new model runs in a child process."""

    def __init__(self, node: BaseNode, bundle: str, backend: str) -> None:
        self._node, self.test = node, ShadowTest()
        self._start = partial(ShadowProcess, bundle, backend)
        self._process, self._failures = self._start(), 0
        self._labels: tuple[str, ...] = ()
        self._threshold = 0.0
        self._due_s = 0.0
        self._image: tuple[int, Image | CompressedImage] | None = None
        self._found: dict[int, Detection2DArray] = {}
        self._compared: Frame | None = None
        self._disagreements = node.create_publisher(CompressedImage, "~/disagreements", RESULTS)
        subscribe, topic = node.create_subscription, node.resolve_topic_name("image_accepted")
        self._opened = [
            # Not deserialized before it is needed.
            *(
                subscribe(kind, name, partial(self._on_image, kind), LATEST_IMAGE, raw=True)
                for kind, name in ((Image, topic), (CompressedImage, f"{topic}/compressed"))
            ),
            subscribe(Detection2DArray, "detections", self._on_detections, RESULTS),
            subscribe(LabelInfo, "label_info", self._on_labels, LATCHED),
        ]

    def close(self) -> None:
        """End the child, and the subscriptions."""
        for subscription in self._opened:
            self._node.destroy_subscription(subscription)
        self._node.destroy_publisher(self._disagreements)
        self._process.stop()

    def verdict(self) -> Verdict | None:
        """commit: the model may serve. None while the comparison goes on."""
        if failure := self._process.failure:
            self._failures += 1
            if self._failures >= MAX_FAILURES:
                return Verdict(False, failure, {"frames": self.test.frames, "failures": self._failures})
            self._process = self._start()
        result = self._process.take()
        if result is None:
            return None
        wanted = self._disagreements.get_subscription_count() > 0
        if self._compared and (result.missed or result.flooded) and wanted:
            # With its pixels: whoever keeps it no longer has the frame.
            self._disagreements.publish(jpeg_message(self._compared))
        return self.test.add(result)

    def _on_labels(self, message: LabelInfo) -> None:
        self._labels = tuple(one.class_name for one in message.class_map)
        self._threshold = float(message.threshold)

    def _on_image(self, kind: type[Image | CompressedImage], data: Any) -> None:
        if self._image is None and self._process.idle and running_s() >= self._due_s:
            message = deserialize_message(data, kind)
            self._image = (stamp_to_ns(message.header.stamp), message)
            self._match()

    def _on_detections(self, message: Detection2DArray) -> None:
        self._found[stamp_to_ns(message.header.stamp)] = message
        for stamp_ns in list(self._found)[:-KEPT]:
            del self._found[stamp_ns]
        self._match()

    def _match(self) -> None:
        """Compare once the detections of the image are there; drop an image without."""
        if self._image is None or not self._labels:
            return
        stamp_ns, message = self._image
        found = self._found.get(stamp_ns)
        if found is None:
            if sum(other > stamp_ns for other in self._found) >= KEPT // 2:
                self._image = None
            return
        self._image, self._due_s = None, running_s() + PERIOD_S
        try:
            frame, detections = frame_from_message(message, 0), detections_from_message(found)
        except (ImageError, ValueError):
            return
        self._compared = frame
        self._process.submit(ShadowJob(frame, detections, self._labels, self._threshold))
