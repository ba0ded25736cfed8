"""The detector node: runs a model bundle and publishes what it found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray, LabelInfo, VisionInfo

from edge_vision.core.detections import Detections
from edge_vision.core.detector import Detector
from edge_vision.core.drawing import draw_detections
from edge_vision.core.frame import Frame
from edge_vision.core.health import LatencyWindow
from edge_vision.core.specs import Thresholds
from edge_vision.core.tick import Tick
from edge_vision.nodes import run, specs
from edge_vision.nodes.base import LATCHED, LATEST_IMAGE, RESULTS, WARN, latency_values
from edge_vision.nodes.conversions import (
    ImageWriter,
    label_info_message,
    vision_info_message,
)
from edge_vision.nodes.fast_detections import best_encoder
from edge_vision.nodes.model import LoadedModel, load_model
from edge_vision.nodes.stage import StageNode
from edge_vision.nodes.tracked import TrackedBoxes

STAGES = ("preprocess_ms", "inference_ms", "postprocess_ms", "age_ms")


class DetectorNode(StageNode):
    """The last stage: the only one that publishes `detections`."""

    spec = specs.DETECTOR
    image_in, ticks_in = "image_accepted", "cascade_ticks"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._model: LoadedModel | None = None
        self._detector: Detector | None = None
        self._models_loaded = 0
        self._windows = {name: LatencyWindow() for name in STAGES}
        self._debug_writer = ImageWriter()
        self._encode = best_encoder()
        self._tracked = TrackedBoxes(self)
        self._last_count = self._total_count = 0
        self._top_score: float | None = None
        self._score_threshold: float | None = None
        self._found_topic = self.resolve_topic_name("detections")
        self._model_topic = self.resolve_topic_name("vision_info")
        for topic in (self._found_topic, self._model_topic):
            self.hub.advertise(topic)

    def configure(self) -> None:
        model = load_model(self)
        detector = Detector.from_bundle(model.bundle, model.session)
        detector.warm_up()
        self._model, self._detector = model, detector
        self._models_loaded += 1
        self._apply_thresholds()

    def activate(self) -> None:
        self._detections = self.outlet(Detection2DArray, "detections", RESULTS)
        self._label_info = self.outlet(LabelInfo, "label_info", LATCHED)
        self._vision_info = self.outlet(VisionInfo, "vision_info", LATCHED)
        self._debug = self.outlet(Image, "~/debug_image", LATEST_IMAGE)
        self._tracked.publish(self.params["publish_tracked"])
        self._announce()
        super().activate()
        # Last: a gate that hears of it sends a frame at once.
        self.hub.tell(self._model_topic)

    def deactivate(self) -> None:
        super().deactivate()
        self._tracked.publish(False)
        self._tracked.reset()

    def cleanup(self) -> None:
        model, self._model, self._detector = self._model, None, None
        # A run that hangs still holds the session: better leaked than pulled from under it.
        if model and not self.worker_hangs:
            model.session.close()

    def _announce(self) -> None:
        """Publish the latched topics: what the class ids mean, and which model says so."""
        if self._model is None or self._detector is None:
            return
        manifest = self._model.bundle.manifest
        threshold = self._detector.thresholds.score_threshold
        self._label_info.publish(label_info_message(self._model.bundle.labels, threshold))
        method = f"{manifest.name} {manifest.version}"
        location = f"sha256:{self._model.bundle.sha256}"
        self._vision_info.publish(vision_info_message(method, location, self._models_loaded))

    def on_params(self, names: set[str]) -> None:
        if self._detector and names & {"score_threshold", "iou_threshold", "max_detections"}:
            self._apply_thresholds()
            if self.state == "active":
                self._announce()

        if self.state == "active":
            self._tracked.publish(self.params["publish_tracked"])
        if not self.params["enabled"]:
            self._tracked.reset()

    def on_time_jump(self) -> None:
        self._tracked.reset()

    def on_tick(self, tick: Tick) -> None:
        if self._active:
            self._tracked.told(tick)

    def _apply_thresholds(self) -> None:
        """The bundle's thresholds, but for those that the user set."""
        if self._model is None or self._detector is None:
            return
        base: Thresholds = self._model.bundle.manifest.thresholds
        given = {
            name: self.params[name] for name in ("score_threshold", "iou_threshold") if self.params[name] >= 0
        }
        if self.params["max_detections"]:
            given["max_detections"] = self.params["max_detections"]
        self._detector.thresholds = replace(base, **given)
        self._score_threshold = self._detector.thresholds.score_threshold

    def _enqueue(self, frame: Frame, tick: Tick | None) -> None:
        self._tracked.judged(frame, tick)
        super()._enqueue(frame, tick)

    def process(self, frame: Frame, tick: Tick | None) -> None:
        if not self.params["enabled"] or self._detector is None:
            self.settle(frame, "rejected", "disabled")
            return
        found = self._detector.detect(frame)
        self._publish(frame, found)
        self.settle(frame, "inferred", "")
        self.hub.tell(self._found_topic, frame.stamp_ns, found)
        self._measure(frame)
        self._publish_debug(frame, found)

    def _publish(self, frame: Frame, found: Detections) -> None:
        self._detections.publish(self._encode(found, frame, self._tracked.ids(frame, found)))
        self.rate_out.tick()
        self._last_count = len(found)
        self._total_count += len(found)

    def _measure(self, frame: Frame) -> None:
        if self._detector:
            top = self._detector.top_score
            self._top_score = top if self._top_score is None else max(self._top_score, top or 0.0)
            timing = self._detector.timing
            for name in STAGES[:3]:
                self._windows[name].add(getattr(timing, name))
        age_ns = self.get_clock().now().nanoseconds - frame.stamp_ns
        self._windows["age_ms"].add(age_ns / 1e6)

    def _publish_debug(self, frame: Frame, found: Detections) -> None:
        if self._debug.listeners == 0 or self._model is None:
            return
        picture = draw_detections(frame.bgr().copy(), found, self._model.bundle.labels)
        self._debug.publish(
            self._debug_writer.message(Frame(picture, frame.stamp_ns, frame.frame_id, "bgr8"))
        )

    def health(self) -> tuple[int, str]:
        if self._model and self._model.report.fallback_reason:
            return WARN, f"fallback: {self._model.report.fallback_reason}"
        return super().health()

    def status_values(self) -> dict[str, Any]:
        values = {
            **super().status_values(),
            "enabled": self.params["enabled"],
            "last_count": self._last_count,
            **self._tracked.status_values(),
            "detections_total": self._total_count,
            "top_score": self._top_score,
            "score_threshold": self._score_threshold,
        }
        self._top_score = None
        for name, window in self._windows.items():
            values.update(latency_values(name, window.percentiles()))
        return {**values, **(self._model.status_values() if self._model else {"model": None})}

    def reset_stats(self) -> None:
        super().reset_stats()
        self._tracked.reset_stats()
        for window in self._windows.values():
            window.reset()


def main(args: list[str] | None = None) -> int:
    """Run the detector alone."""
    return run.main([DetectorNode], "detector_node", args)
