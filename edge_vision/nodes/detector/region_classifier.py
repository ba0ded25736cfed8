"""Classifies each detection with a second model, for subscribers of `classifications`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from vision_msgs.msg import Detection2DArray, LabelInfo

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.latency import LatencyWindow
from edge_vision.nodes.base_node import latency_values
from edge_vision.nodes.interface.detection_messages import detections_message, label_info_message
from edge_vision.nodes.served_classifier import ServedClassifier
from edge_vision.nodes.stage_node import StageNode
from edge_vision.nodes.transport.lazy_publisher import LazyPublisher
from edge_vision.nodes.transport.qos import LATCHED, RESULTS


class RegionClassification:
    """The executor calls `load` and `close` at configure and cleanup, `open` at activate; the worker
    `publish`."""

    def __init__(self, node: StageNode) -> None:
        self._node = node
        self._model: ServedClassifier | None = None
        self._publisher: LazyPublisher | None = None
        self._failed = 0
        self._times = LatencyWindow()

    def load(self) -> None:
        """Load the bundle of the parameter `classifier`. Raises BundleError, BackendError, HeadError."""
        if name := self._node.params["classifier"]:
            self._model = ServedClassifier(self._node, name)

    def close(self) -> None:
        model, self._model = self._model, None
        if model:
            model.close()

    def watch(self, limit_s: float) -> None:
        """See ServedClassifier."""
        if model := self._model:
            model.watch(limit_s)

    def open(self) -> None:
        """Create the publishers, which the node closes when it is deactivated."""
        if model := self._model:
            self._publisher = self._node.open_publisher(Detection2DArray, "classifications", RESULTS)
            labels = self._node.open_publisher(LabelInfo, "classifications/label_info", LATCHED)
            labels.try_publish(lambda: label_info_message(model.bundle.labels, 0.0))

    def publish(self, frame: Frame, found: Detections, ids: np.ndarray | None) -> None:
        """Publish the best class of each detection, if there is a subscriber. Does not raise."""
        model, publisher = self._model, self._publisher
        if model is None or publisher is None or not publisher.subscription_count:
            return
        try:
            results = model.classify_regions(frame, found.xyxy_px)
        except Exception as error:  # The runtimes' exceptions have no common base.
            self._failed += 1
            self._node.log_throttled("error", f"no classifications: {error}", "classifications")
            return
        scores = np.array([one.scores.max() for one in results], np.float32)
        class_ids = np.array([one.scores.argmax() for one in results], np.int32)
        # In the order of the detections, not of these scores.
        named = replace(found, scores=scores, class_ids=class_ids)
        publisher.try_publish(lambda: detections_message(named, frame, ids))
        self._times.add(sum({id(one.timing): one.timing.total_ms for one in results}.values()))

    def reset_stats(self) -> None:
        self._times.reset()

    def status_values(self) -> dict[str, Any]:
        return {
            "classifier": str(self._model.bundle) if self._model else "off",
            "failed_classifications_total": self._failed,
            **latency_values("classification_ms", self._times),
        }
