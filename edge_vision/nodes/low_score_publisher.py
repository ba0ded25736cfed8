"""What the detector nearly found, told to whoever wants to know, as a gate in another process does."""

from __future__ import annotations

from vision_msgs.msg import Detection2DArray

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.nodes.base_node import BaseNode
from edge_vision.nodes.interface.cdr import best_encoder
from edge_vision.nodes.lazy_publisher import LazyPublisher
from edge_vision.nodes.qos import RESULTS


class LowScorePublisher:
    """Publishes `detections_low_score` while it is enabled. `publish` is thread-safe and does not raise."""

    def __init__(self, node: BaseNode) -> None:
        self._node = node
        self._encode = best_encoder()
        self._outlet: LazyPublisher | None = None

    def offer(self, wanted: bool) -> None:
        """Offer the topic, or withdraw it."""
        outlet = self._outlet
        if wanted and outlet is None:
            self._outlet = LazyPublisher(self._node, Detection2DArray, "detections_low_score", RESULTS)
        elif outlet is not None and not wanted:
            # Forgotten before it is closed: another thread may be about to look at it.
            self._outlet = None
            outlet.close()

    def publish(self, frame: Frame, low_score: Detections | None) -> None:
        """Tell of a frame, where somebody listens. None: nothing is known of it."""
        outlet = self._outlet
        if outlet is None or low_score is None or not outlet.subscription_count:
            return
        try:
            outlet.publish(self._encode(low_score, frame, None))
        except Exception as error:  # A closed publisher, or a middleware that fails.
            self._node.log_throttled("error", f"cannot publish: {error}", "publish")
