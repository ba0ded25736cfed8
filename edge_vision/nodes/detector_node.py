"""The detector node: runs a model bundle and publishes the detections."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edge_vision.backends.serving.loaded_model import LoadedModel
from edge_vision.core.concurrency.worker import WorkerClient
from edge_vision.core.detections import DetectionResult, Detections
from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.geometry.zones import Zones
from edge_vision.core.running_clock import running_s
from edge_vision.detect.delay_promise import CameraNeed, unmet_promise
from edge_vision.detect.detector import Detector
from edge_vision.detect.report_filter import ReportConfig, ReportFilter, unknown_classes
from edge_vision.nodes import run
from edge_vision.nodes.base_node import OK, WARN
from edge_vision.nodes.detector.guarded_model import GuardedModel
from edge_vision.nodes.detector.model import DetectorModel, SharedDetector
from edge_vision.nodes.detector.output import DetectionOutput
from edge_vision.nodes.detector.overlay import DetectionOverlay
from edge_vision.nodes.detector.region_classifier import RegionClassification
from edge_vision.nodes.detector.roi_detection import RoiDetection
from edge_vision.nodes.detector.shape_output import ShapeOutput
from edge_vision.nodes.detector.stats import DetectorStats
from edge_vision.nodes.detector.track_publisher import TrackPublisher
from edge_vision.nodes.interface import specs
from edge_vision.nodes.model_loading import MODEL_PARAMS
from edge_vision.nodes.stage_node import StageNode, WorkItem, camera_motion_of

DEFAULT_MAX_DELAY_MS = float(specs.GATE.param("max_delay_ms").default)
MIN_FRAMES = 10
"""Frames after which the detector's time for a frame is known."""
RATE_REPORTS = 6
"""Reports over which the camera's rate is measured."""
HANG_FACTOR = 5.0
"""An inference within this many times the median is not a hang."""
THRESHOLDS = {"score_threshold", "iou_threshold", "max_detections"}
REPORT = {"wanted_classes", "min_box_px", "zones"}


class DetectorNode(StageNode):
    """The last stage, and the only one that publishes `detections`."""

    spec = specs.DETECTOR
    image_in, events_in = "image_accepted", "cascade_events"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.report = ReportFilter()
        self.guard = GuardedModel(self)
        self.model = DetectorModel(
            self, self._apply_settings, self._on_model, self.replace_worker, self._inference_limit_s
        )
        self._shared = self.hub.shared(SharedDetector)
        self.tracks = TrackPublisher(self, self.report)
        self.detections = DetectionOutput(self)
        self.overlay = DetectionOverlay(self, self._labels, lambda: self.report.zones)
        self.shapes = ShapeOutput(self)
        self.classification = RegionClassification(self)
        self.roi = RoiDetection(self.tracks)
        self._detector_stats = DetectorStats()
        # Times and the frames that the camera had sent by then.
        self._received: deque[tuple[float, int]] = deque(maxlen=RATE_REPORTS)
        self._models_loaded = 0
        self._score_threshold: float | None = None
        self._detections_topic = self.resolve_topic_name("detections")
        self._model_topic = self.resolve_topic_name("vision_info")
        for topic in (self._detections_topic, self._model_topic):
            self.hub.advertise(topic)

    # Life cycle.
    def configure(self) -> None:
        self.classification.load()
        try:
            self.model.start()
        except Exception:
            self.classification.close()
            raise

    def activate(self) -> None:
        self.detections.open()
        self.overlay.open()
        self.classification.open()
        self.roi.configure(self.params)
        self._enable_optional_topics()
        self._enable_shapes()
        self._publish_model()
        super().activate()
        # Last: a gate that is notified sends a frame at once.
        self.hub.notify(self._model_topic)

    def deactivate(self) -> None:
        super().deactivate()
        self._shared.needs.pop(self.camera, None)
        self._received.clear()
        self.tracks.configure(publish=False, track=False)
        self.detections.low_score.enable(False)
        self.shapes.close()
        self._reset_scene()

    def cleanup(self) -> None:
        self.model.stop()
        self.guard.close()
        self.classification.close()

    def _enable_optional_topics(self) -> None:
        self.tracks.configure(publish=self.params["publish_tracks"], track=self.roi.needs_tracks)
        self.detections.low_score.enable(self.params["publish_low_score"])

    def _enable_shapes(self) -> None:
        """Only the executor calls it: the topics of a new model take up to a second."""
        if model := self.model.current:
            self.shapes.enable(model.runner.shape_kind)

    # The model.
    def _on_model(self, model: LoadedModel[Detector]) -> None:
        """Another model, or the same on another backend, has taken over. Any thread."""
        self._models_loaded += 1
        self._detector_stats.reset()
        self._reset_scene()
        self._announce_model()

    def _announce_model(self) -> None:
        """Report a new model or new thresholds to the subscribers and the gate."""
        if self.state == "active":
            self._publish_model()
            self.hub.notify(self._model_topic)

    def _publish_model(self) -> None:
        if model := self.model.current:
            # First: the gate, which infers a frame for a new model, must then know them.
            self.detections.publish_zones(self.params["zones"])
            self.detections.publish_model(model, self._models_loaded)

    def _labels(self) -> tuple[str, ...]:
        model = self.model.current
        return model.bundle.labels if model else ()

    def _inference_limit_s(self) -> float:
        limit_ms = self.params["watchdog_ms"] if self._active else 0.0
        usual_ms = self._detector_stats.median_inference_ms or 0.0
        return max(limit_ms, HANG_FACTOR * usual_ms) / 1e3 if limit_ms else 0.0

    def _apply_settings(self, model: LoadedModel[Detector]) -> None:
        """Use the bundle's thresholds, except for those that are set by parameter, and report what the
        parameters select."""
        given = {
            name: self.params[name] for name in ("score_threshold", "iou_threshold") if self.params[name] >= 0
        }
        if self.params["max_detections"]:
            given["max_detections"] = self.params["max_detections"]
        model.runner.thresholds = replace(model.bundle.manifest.thresholds, **given)
        self._score_threshold = model.runner.thresholds.score_threshold
        self.guard.use(model)
        params = self.params
        self.hub.zones = Zones.parse(params["zones"])
        config = ReportConfig(tuple(params["wanted_classes"]), params["min_box_px"], self.hub.zones)
        self.report.configure(config, model.bundle.labels)

    # Parameters and events.
    def check_params(self, values: Mapping[str, Any], changed: set[str]) -> None:
        self.model.check_params(values, changed)
        # The labels of a model that is set at the same time are not known yet.
        check = "wanted_classes" in changed and "model" not in changed
        if check and (unknown := unknown_classes(values["wanted_classes"], self._labels())):
            raise ValueError(f"wanted_classes: {unknown}")

    def on_params(self, names: set[str]) -> None:
        if names & MODEL_PARAMS:
            self.model.request_change()
        if (model := self.model.current) and names & (THRESHOLDS | REPORT):
            self._apply_settings(model)
            self._announce_model()
        self.roi.configure(self.params)
        if self.state == "active":
            self._enable_optional_topics()
        if not self.params["enabled"]:
            self._reset_scene()

    def on_time_jump(self) -> None:
        self._reset_scene()

    def _reset_scene(self) -> None:
        """Forget the objects and the view of previous frames."""
        self.tracks.reset()
        self.roi.reset()

    def on_frame_event(self, event: FrameEvent) -> None:
        if self._active and (tracks := self.tracks.add_event(event)) is not None:
            self.overlay.show(event, event.frame, tracks.detections(), tracks.ids, predicted=True)

    # Work.
    def _new_worker(self) -> WorkerClient[WorkItem]:
        return self._shared.worker.join(
            self._work, lambda: self.max_delay_ms / 1e3, self._detector_stats.record_wait
        )

    @property
    def max_delay_ms(self) -> float:
        """The delay that the camera's gate promises; the gate's default without a gate in this process."""
        promised_ms = self.hub.max_delay_ms
        return DEFAULT_MAX_DELAY_MS if promised_ms is None else promised_ms

    def _enqueue(self, frame: Frame, event: FrameEvent | None) -> None:
        self.tracks.add_frame(frame, event)
        super()._enqueue(frame, event)

    def process(self, frame: Frame, event: FrameEvent | None) -> None:
        if not self.params["enabled"]:
            self.on_frame_event(self.event(frame, "rejected", "disabled", motion=camera_motion_of(event)))
            self.settle(frame, "rejected", "disabled")
            return
        # Decoded before the watchdog starts: decoding a large image must not look like a hanging backend.
        _ = frame.image
        with_masks = self.shapes.wants_masks or self.overlay.is_watched
        done = self.model.run(
            (frame, event),
            lambda detector: self.guard.detect(
                detector, frame, lambda one: self.roi.detect(one, frame, event, with_masks)
            ),
        )
        if done is None:
            return
        result = self.report.apply(done[1], (frame.width_px, frame.height_px))
        self.shapes.report_failure(result.mask_error)
        # Before the detections: the gate processes both together when the latter arrive.
        self.detections.publish_low_score(frame, result.low_score)
        ids = self._publish(frame, result.detections)
        # Before the frame is settled: whoever waits for that may send the next frame.
        self.hub.notify(self._detections_topic, frame.stamp_ns, result.detections, result.low_score)
        self.settle(frame, "inferred", "")
        self._measure(frame, result)
        self.overlay.show(frame, frame, result.detections, ids)
        self.classification.publish(frame, result.detections, ids)

    def _publish(self, frame: Frame, found: Detections) -> np.ndarray | None:
        """Publish the detections; returns the ids of their tracks."""
        ids = self.tracks.assign_ids(frame, found)
        self.tracks.publish_inferred(self.detections.publish_detections(frame, found, ids))
        if found.shapes is not None:
            self.shapes.publish(frame, found)
        self.stats.rate_out.count()
        self._detector_stats.count(len(found))
        return ids

    def _measure(self, frame: Frame, result: DetectionResult) -> None:
        age_ns = self.get_clock().now().nanoseconds - frame.stamp_ns
        self._detector_stats.record(result, age_ns / 1e6)

    # Reports.
    def publish_status(self) -> None:
        if self._active:
            self._update_need()
            self._enable_shapes()
            self.classification.watch(self.params["watchdog_ms"] / 1e3 or 10.0)
        super().publish_status()

    def _update_need(self) -> None:
        """Report what this camera's promise needs of the shared detector, while it sends frames."""
        self._received.append((running_s(), self.hub.ledger.snapshot().received))
        (since_s, before), (now_s, received) = self._received[0], self._received[-1]
        service = self.stats.process_ms.percentiles()
        self._shared.needs.pop(self.camera, None)
        measured = received > before and self.stats.process_ms.count >= MIN_FRAMES
        if service and measured and self.hub.max_delay_ms:
            period_ms = (now_s - since_s) * 1e3 / (received - before)
            self._shared.needs[self.camera] = CameraNeed(service["p50"], period_ms, self.hub.max_delay_ms)

    def health(self) -> tuple[int, str]:
        level, text = super().health()
        if level != OK:
            return level, text
        model, swap_error = self.model.current, self.model.manager.swap_error
        problems = (
            f"fallback: {model.report.fallback_reason}" if model and model.report.fallback_reason else "",
            f"model not changed: {swap_error}" if swap_error else "",
            f"wanted_classes: {self.report.trouble}" if self.report.trouble else "",
            self.guard.trouble,
            model.session.trouble if model else "",
            unmet_promise(self._shared.needs),
        )
        found = "; ".join(filter(None, problems))
        return (WARN, found) if found else (level, text)

    def status_values(self) -> dict[str, Any]:
        model = self.model.current
        return {
            **super().status_values(),
            "enabled": self.params["enabled"],
            "score_threshold": self._score_threshold,
            **self._detector_stats.values(),
            **self.report.status(),
            "unlabelled_total": model.runner.unlabelled if model else 0,
            **self.shapes.status_values(),
            **self.classification.status_values(),
            "busy_ms": self._busy_ms,
            **self.tracks.status_values(),
            **self.roi.status_values(),
            **self.guard.status_values(),
            **self.model.manager.status_values(),
            **self._shared.status_values(),
        }

    @property
    def _busy_ms(self) -> float:
        """How long the frame in work takes, or that of another camera for which a frame of this one waits."""
        client = self._worker
        waits = client and (client.item or client.current)
        return self._shared.worker.busy_s * 1e3 if waits else 0.0

    def reset_stats(self) -> None:
        super().reset_stats()
        self._detector_stats.reset()
        self.report.reset_stats()
        self.classification.reset_stats()
        self.tracks.reset_stats()
        self.roi.reset_stats()


def main(args: list[str] | None = None) -> int:
    return run.main([DetectorNode], "detector_node", args)
