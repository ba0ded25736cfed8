"""The detector node: runs a model bundle and publishes what it found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray, LabelInfo, VisionInfo

from edge_vision.backends import Session
from edge_vision.backends.loaded_model import LoadedModel
from edge_vision.backends.model_manager import ModelManager
from edge_vision.bundles import Bundle
from edge_vision.core.detection_overlay import draw_detections
from edge_vision.core.detections import DetectionResult, Detections
from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.latency import LatencyWindow
from edge_vision.core.model_spec import Thresholds
from edge_vision.detect.detector import Detector
from edge_vision.errors import BackendError, HeadError
from edge_vision.nodes import run
from edge_vision.nodes.base_node import OK, WARN, latency_values, steady_clock
from edge_vision.nodes.interface import specs
from edge_vision.nodes.interface.cdr import best_encoder
from edge_vision.nodes.interface.detection_messages import label_info_message, vision_info_message
from edge_vision.nodes.interface.image_messages import ImageWriter
from edge_vision.nodes.low_score_publisher import LowScorePublisher
from edge_vision.nodes.model_loading import (
    MODEL_PARAMS,
    check_model_params,
    log_loaded_model,
    model_request,
    request_parameters,
)
from edge_vision.nodes.qos import LATCHED, LATEST_IMAGE, RESULTS
from edge_vision.nodes.roi_detection import RoiDetection
from edge_vision.nodes.stage_node import StageNode
from edge_vision.nodes.track_publisher import TrackPublisher

# How often a run that hangs, a failed backend's time and a refused model are looked for.
WATCH_S = 0.2
HANGS_TIMES_P50 = 5.0
# Backends that may fail on one frame before it is given up.
MOST_ATTEMPTS = 3
THRESHOLDS = {"score_threshold", "iou_threshold", "max_detections"}
STAGES = ("preprocess_ms", "inference_ms", "postprocess_ms", "age_ms")


class DetectorNode(StageNode):
    """The last stage: the only one that publishes `detections`."""

    spec = specs.DETECTOR
    image_in, events_in = "image_accepted", "cascade_events"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._manager: ModelManager[Detector] = ModelManager(_detector, self._tell, self._on_model)
        self._models_loaded = 0
        self._taking_back = False
        self._watch_timer: Any = None
        self._windows = {name: LatencyWindow() for name in STAGES}
        self._debug_writer = ImageWriter()
        self._encode = best_encoder()
        self._tracked = TrackPublisher(self)
        self._looking = RoiDetection(self._tracked)
        self._low_score = LowScorePublisher(self)
        self._last_count = self._total_count = 0
        self._top_score: float | None = None
        self._score_threshold: float | None = None
        self._found_topic = self.resolve_topic_name("detections")
        self._model_topic = self.resolve_topic_name("vision_info")
        for topic in (self._found_topic, self._model_topic):
            self.hub.advertise(topic)

    @property
    def _model(self) -> LoadedModel[Detector] | None:
        return self._manager.model

    @property
    def _detector(self) -> Detector | None:
        return self._model.runner if self._model else None

    def configure(self) -> None:
        log_loaded_model(self, self._manager.start(model_request(self)))
        self._watch_timer = self.create_timer(WATCH_S, self._watch, clock=steady_clock())

    def activate(self) -> None:
        self._detections = self.open_publisher(Detection2DArray, "detections", RESULTS)
        self._label_info = self.open_publisher(LabelInfo, "label_info", LATCHED)
        self._vision_info = self.open_publisher(VisionInfo, "vision_info", LATCHED)
        self._debug = self.open_publisher(Image, "~/debug_image", LATEST_IMAGE)
        self._looking.configure(self.params)
        self._tracked.publish(self.params["publish_tracked"], self._looking.needs_tracks)
        self._low_score.offer(self.params["publish_low_score"])
        self._announce()
        super().activate()
        # Last: a gate that hears of it sends a frame at once.
        self.hub.notify(self._model_topic)

    def deactivate(self) -> None:
        super().deactivate()
        self._tracked.publish(False)
        self._low_score.offer(False)
        self._forget()

    def cleanup(self) -> None:
        if self._watch_timer:
            self.destroy_timer(self._watch_timer)
            self._watch_timer = None
        self._manager.stop()

    # The model.
    def _tell(self, severity: str, event: str, text: str) -> None:
        self.structured_log.event(event, text, severity, **self._manager.status_values())

    def _on_model(self, model: LoadedModel[Detector]) -> None:
        """Another model serves, or the same on another backend. Any thread."""
        self._models_loaded += 1
        self._apply_thresholds(model)
        self._forget()
        if self.state == "active":
            self._announce()
            self.hub.notify(self._model_topic)

    def _watch(self) -> None:
        """Replace a run that hangs, try again what failed, and take back a model that was refused."""
        self._manager.retry_if_due()
        limit_ms = self.params["watchdog_ms"]
        if self._active and limit_ms:
            limit_ms *= self._looking.max_runs
            usual = self._windows["inference_ms"].percentiles()
            limit_ms = max(limit_ms, HANGS_TIMES_P50 * usual["p50"] if usual else 0.0)
            job = self._manager.revoke(limit_ms / 1e3)
            if job is not None:
                self.replace_worker(job)
        refused, self._manager.refused = self._manager.refused, None
        if refused == model_request(self):
            self._take_back()

    def _take_back(self) -> None:
        """Set the parameters to what serves: one that is set is one that acts."""
        wish = self._manager.request
        values = request_parameters(wish) if wish else {}
        changed = [name for name in values if values[name] != self.params[name]]
        self._taking_back = True  # Only a user's own value says that the refusal has been read.
        try:
            self.set_parameters_atomically([Parameter(name, value=values[name]) for name in changed])
        finally:
            self._taking_back = False

    def _announce(self) -> None:
        """Publish the latched topics: what the class ids mean, and which model says so."""
        model = self._model
        if model is None:
            return
        manifest = model.bundle.manifest
        threshold = model.runner.thresholds.score_threshold
        self._label_info.try_publish(lambda: label_info_message(model.bundle.labels, threshold))
        method = f"{manifest.name} {manifest.version}"
        location = f"sha256:{model.bundle.sha256}"
        # By any thread: the node may be deactivated just now.
        self._vision_info.try_publish(lambda: vision_info_message(method, location, self._models_loaded))

    def check_params(self, values: Mapping[str, Any], changed: set[str]) -> None:
        if not self._taking_back:
            check_model_params(values, changed)

    def on_params(self, names: set[str]) -> None:
        if names & MODEL_PARAMS and not self._taking_back:
            self._manager.swap(model_request(self))
        if self._model and names & {*THRESHOLDS, "publish_low_score"}:
            self._apply_thresholds(self._model)
            if self.state == "active" and names & THRESHOLDS:
                self._announce()
                self.hub.notify(self._model_topic)
        self._looking.configure(self.params)
        if self.state == "active":
            self._tracked.publish(self.params["publish_tracked"], self._looking.needs_tracks)
            self._low_score.offer(self.params["publish_low_score"])
        if not self.params["enabled"]:
            self._forget()

    def on_time_jump(self) -> None:
        self._forget()

    def _forget(self) -> None:
        """What was seen before says nothing of what comes."""
        self._tracked.reset()
        self._looking.reset()

    def on_frame_event(self, tick: FrameEvent) -> None:
        if self._active:
            self._tracked.told(tick)

    def _apply_thresholds(self, model: LoadedModel[Detector]) -> None:
        """The bundle's thresholds, but for those that the user set."""
        base: Thresholds = model.bundle.manifest.thresholds
        given = {
            name: self.params[name] for name in ("score_threshold", "iou_threshold") if self.params[name] >= 0
        }
        if self.params["max_detections"]:
            given["max_detections"] = self.params["max_detections"]
        model.runner.thresholds = replace(base, **given)
        self._score_threshold = model.runner.thresholds.score_threshold

    def _enqueue(self, frame: Frame, tick: FrameEvent | None) -> None:
        self._tracked.judged(frame, tick)
        super()._enqueue(frame, tick)
        self._tracked.prepare(frame)

    def process(self, frame: Frame, tick: FrameEvent | None) -> None:
        if not self.params["enabled"]:
            self.settle(frame, "rejected", "disabled")
            return
        # Decoded before the watchdog starts, to which a large image would look like a backend that hangs.
        _ = frame.image
        answer = self._detect(frame, tick)
        if answer is None:
            return
        model, result = answer
        found, low_score = result.detections, result.low_score
        # Before the detections: the gate processes both together when the latter arrive.
        self._low_score.publish(frame, low_score)
        self._publish(frame, found)
        # Before the books say so: who reads them there may send the next frame.
        self.hub.notify(self._found_topic, frame.stamp_ns, found, low_score)
        self.settle(frame, "inferred", "")
        self._measure(frame, result)
        self._publish_debug(frame, found, model)

    def _detect(
        self, frame: Frame, tick: FrameEvent | None
    ) -> tuple[LoadedModel[Detector], DetectionResult] | None:
        """What is on a frame, and the model that says so; None where the frame is no longer this thread's.

        A model that fails is replaced, and the next best looks at the same frame.
        """
        failed: set[int] = set()
        while True:
            model = self._manager.acquire((frame, tick))
            try:
                result = self._looking.detect(model.runner, frame, tick)
            except (BackendError, HeadError) as error:
                if not self._manager.release(model):
                    return None
                self._manager.report_failure(model, str(error))
                if id(model) in failed or len(failed) >= MOST_ATTEMPTS:
                    raise
                failed.add(id(model))
            except BaseException:
                if not self._manager.release(model):
                    return None
                raise
            else:
                return (model, result) if self._manager.release(model) else None

    def _publish(self, frame: Frame, found: Detections) -> None:
        self._detections.publish(self._encode(found, frame, self._tracked.ids(frame, found)))
        self.stats.rate_out.count()
        self._last_count = len(found)
        self._total_count += len(found)

    def _measure(self, frame: Frame, result: DetectionResult) -> None:
        top = result.top_score
        self._top_score = top if self._top_score is None else max(self._top_score, top or 0.0)
        for name in STAGES[:3]:
            self._windows[name].add(getattr(result.timing, name))
        age_ns = self.get_clock().now().nanoseconds - frame.stamp_ns
        self._windows["age_ms"].add(age_ns / 1e6)

    def _publish_debug(self, frame: Frame, found: Detections, model: LoadedModel[Detector]) -> None:
        if self._debug.subscription_count == 0:
            return
        picture = draw_detections(frame.bgr().copy(), found, model.bundle.labels)
        self._debug.publish(
            self._debug_writer.message(Frame(picture, frame.stamp_ns, frame.frame_id, "bgr8"))
        )

    def health(self) -> tuple[int, str]:
        level, text = super().health()
        if level != OK:
            return level, text
        model = self._model
        if model and model.report.fallback_reason:
            return WARN, f"fallback: {model.report.fallback_reason}"
        if self._manager.swap_error:
            return WARN, f"model not changed: {self._manager.swap_error}"
        return level, text

    def status_values(self) -> dict[str, Any]:
        values = {
            **super().status_values(),
            "enabled": self.params["enabled"],
            "last_count": self._last_count,
            **self._tracked.status_values(),
            **self._looking.status_values(),
            "detections_total": self._total_count,
            "top_score": self._top_score,
            "score_threshold": self._score_threshold,
        }
        self._top_score = None
        for name, window in self._windows.items():
            values.update(latency_values(name, window.percentiles()))
        return {**values, **self._manager.status_values()}

    def reset_stats(self) -> None:
        super().reset_stats()
        self._tracked.reset_stats()
        self._looking.reset_stats()
        for window in self._windows.values():
            window.reset()


def _detector(bundle: Bundle, session: Session) -> Detector:
    detector = Detector.from_bundle(bundle, session)
    detector.warm_up()
    return detector


def main(args: list[str] | None = None) -> int:
    """Run the detector alone."""
    return run.main([DetectorNode], "detector_node", args)
