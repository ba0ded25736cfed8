"""The recorder node: keeps what the pipeline publishes, and writes it to a file when something happens.

In the pipeline's process it receives frames and frame events by reference, otherwise over DDS. Everything
else arrives serialized, and is recorded as it is.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection2DArray, LabelInfo, VisionInfo

from edge_vision.bundles.store import cache_dir
from edge_vision.core.compressed import CompressedFrame, CompressedPicture
from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.geometry.zones import NO_ZONES, Zones
from edge_vision.core.stamp_check import stamp_to_ns
from edge_vision.errors import EdgeVisionError, OutputError
from edge_vision.nodes import run
from edge_vision.nodes.base_node import OK, WARN, BaseNode
from edge_vision.nodes.interface import specs
from edge_vision.nodes.interface.detection_messages import MAX_MESSAGE_BYTES, detections_from_message
from edge_vision.nodes.interface.frame_event_messages import frame_event_message
from edge_vision.nodes.interface.headers import header_of
from edge_vision.nodes.interface.image_messages import frame_from_message, jpeg_message
from edge_vision.nodes.interface.recorder import STATUS_NODES
from edge_vision.nodes.interface.status_messages import status_values
from edge_vision.nodes.transport.qos import FRAME_EVENTS, LATCHED, LATEST_IMAGE, RESULTS, STATUS, VIEWED_IMAGE
from edge_vision.record.annotations import DEFINITION, TYPE, encode_annotations
from edge_vision.record.definitions import definition_of, type_name
from edge_vision.record.folder import RecordingFolder, Retention
from edge_vision.record.mcap_writer import RecordedTopic, qos_text
from edge_vision.record.recorder import Message, Recorder, RecorderSettings
from edge_vision.record.rules import Rule, RuleWatch, parse_rules

EVENTS = ("gate_events", "cascade_events")
RECORDED: tuple[tuple[str, type, QoSProfile], ...] = (
    ("detections", Detection2DArray, RESULTS),
    ("tracks", Detection2DArray, RESULTS),
    ("label_info", LabelInfo, LATCHED),
    ("vision_info", VisionInfo, LATCHED),
    ("zones", String, LATCHED),
    *((f"{name}/status", DiagnosticArray, STATUS) for name in STATUS_NODES),
    ("/diagnostics", DiagnosticArray, RESULTS),
)
LABELS_AND_ZONES = ("label_info", "zones")
RULE_INPUT = {"audit_miss": "gate/status", "fallback": "detector/status", "class": "detections"}
RULE_INPUT |= {"cause": "/diagnostics", "temperature": "/diagnostics"}


class RecorderNode(BaseNode):
    """Sends nothing to the other nodes: they neither wait for it nor know of it."""

    spec = specs.RECORDER

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._recorder: Recorder | None = None
        self._watch = RuleWatch((), self._on_rule)
        self._opened: list[Any] = []
        self._labels: tuple[str, ...] = ()
        self._zones = NO_ZONES
        self._size_px: tuple[int, int] | None = None
        self._services_made.append(self.create_service(Trigger, "~/snapshot", self._answer_snapshot))
        self._image_topic = f"{self.resolve_topic_name('image_raw')}/compressed"
        self._tracks_topic = self.resolve_topic_name("tracks")
        self._annotations_topic = self.resolve_topic_name("tracks/annotations")
        for name in EVENTS:
            topic = self.resolve_topic_name(name)
            self.hub.subscribe(topic, partial(self._on_event, topic, name == EVENTS[0]))

    # Life cycle.
    def configure(self) -> None:
        self._watch = RuleWatch(_checked_rules(self.params["rules"]), self._on_rule)

    def activate(self) -> None:
        camera = self.camera.strip("/").replace("/", ".") or "default"
        given = self.params["folder"]
        path = Path(given).expanduser() if given else cache_dir() / "recordings" / camera
        latched = frozenset(self.resolve_topic_name(name) for name, _, qos in RECORDED if _is_latched(qos))
        recorder = Recorder(
            RecordingFolder(path, camera),
            self._topics(),
            self._settings(),
            self._annotated,
            self._log,
            latched,
        )
        try:
            recorder.start()
        except OSError as error:
            raise OutputError(
                f"folder: expected one with space that files can be written to, got {path}: "
                f"{error.strerror or error}"
            ) from None
        self._recorder = recorder
        for name, kind, qos in RECORDED:
            on_message = partial(self._on_message, name, self.resolve_topic_name(name))
            self._opened.append(self.create_subscription(kind, name, on_message, qos, raw=True))
        if not self.hub.has_sender(self.resolve_topic_name("gate/image")):
            self._subscribe_to_frames()

    def _subscribe_to_frames(self) -> None:
        """The gate is in another process."""
        subscribe, raw = self.create_subscription, self.params["image_transport"] == "raw"
        kind, topic = (Image, "image_raw") if raw else (CompressedImage, self._image_topic)
        # Serialized: of the images that are not kept, no field is read.
        self._opened.append(subscribe(kind, topic, self._on_image, LATEST_IMAGE, raw=True))
        for name in EVENTS:
            on_event = partial(self._on_message, name, self.resolve_topic_name(name))
            self._opened.append(subscribe(DiagnosticArray, name, on_event, FRAME_EVENTS, raw=True))

    def deactivate(self) -> None:
        for subscription in self._opened:
            self.destroy_subscription(subscription)
        self._opened = []
        recorder, self._recorder = self._recorder, None
        if recorder:
            recorder.stop()

    def _settings(self) -> RecorderSettings:
        params = self.params
        return RecorderSettings(
            ring_bytes=int(params["ring_mb"] * 1e6),
            image_hz=params["image_hz"],
            before_s=params["before_s"],
            after_s=params["after_s"],
            max_s=params["max_recording_s"],
            quiet_s=params["rule_interval_s"],
            retention=Retention(int(params["max_total_mb"] * 1e6), params["max_age_days"]),
        )

    def _topics(self) -> dict[str, RecordedTopic]:
        events = ((name, DiagnosticArray, FRAME_EVENTS) for name in EVENTS)
        found = [(self.resolve_topic_name(name), kind, qos) for name, kind, qos in (*RECORDED, *events)]
        found.append((self._image_topic, CompressedImage, VIEWED_IMAGE))
        topics = [
            RecordedTopic(name, type_name(kind), definition_of(type_name(kind)), _qos(qos))
            for name, kind, qos in found
        ]
        topics.append(RecordedTopic(self._annotations_topic, TYPE, DEFINITION, _qos(RESULTS)))
        return {topic.name: topic for topic in topics}

    def check_params(self, values: Mapping[str, Any], changed: set[str]) -> None:
        if "rules" in changed:
            _checked_rules(values["rules"])

    def on_params(self, names: set[str]) -> None:
        if "rules" in names:
            self._watch = RuleWatch(parse_rules(self.params["rules"]), self._on_rule)
        if self._recorder:
            self._recorder.configure(self._settings())

    # Frames. Any thread.
    def _on_event(self, topic: str, with_frame: bool, event: FrameEvent) -> None:
        """An event of a stage in this process. The gate's come once per frame, with the frame."""
        recorder = self._recorder
        if recorder is None or not (with_frame or event.fate or event.stage == "cascade"):
            return
        if with_frame and event.frame is not None and event.fate != "failed":
            recorder.offer_image(partial(self._compressed, event.frame))
        light = event._replace(frame=None)
        recorder.offer(lambda: (topic, serialize_message(frame_event_message(light))))

    def _on_image(self, message: bytes) -> None:
        if recorder := self._recorder:
            recorder.offer_image(partial(self._compressed_message, message))

    def _compressed(self, frame: Frame) -> Message:
        """An image that was received compressed as it is, another one as JPEG."""
        self._size_px = frame.width_px, frame.height_px
        if isinstance(frame.origin, CompressedImage):
            return self._image_topic, serialize_message(frame.origin)
        if isinstance(frame, CompressedFrame) and isinstance(picture := frame.source, CompressedPicture):
            message = CompressedImage(header=header_of(frame.stamp_ns, frame.frame_id))
            message.format, message.data = picture.declared, array("B", picture.data.tobytes())
            return self._image_topic, serialize_message(message)
        return self._image_topic, serialize_message(jpeg_message(frame))

    def _compressed_message(self, serialized: bytes) -> Message:
        raw = self.params["image_transport"] == "raw"
        message = deserialize_message(serialized, Image if raw else CompressedImage)
        frame = frame_from_message(message, 0, self.params["max_image_megapixels"] * 1e6)
        self._size_px = frame.width_px, frame.height_px
        return (self._image_topic, serialize_message(jpeg_message(frame)) if raw else serialized)

    def _annotated(self, topic: str, data: bytes) -> Message | None:
        """The annotations of a message of tracks."""
        if topic != self._tracks_topic or len(data) > MAX_MESSAGE_BYTES:
            return None
        message = deserialize_message(data, Detection2DArray)
        try:
            found, stamp_ns = detections_from_message(message), stamp_to_ns(message.header.stamp)
        except (EdgeVisionError, ValueError):
            return None
        ids = [one.id for one in message.detections]
        return self._annotations_topic, encode_annotations(stamp_ns, found, ids, self._labels)

    # Everything else.
    def _on_message(self, name: str, topic: str, data: bytes) -> None:
        recorder = self._recorder
        if recorder is None:
            return
        recorder.add(topic, data)
        if name not in LABELS_AND_ZONES and name not in self._needed:
            return
        try:
            if len(data) > MAX_MESSAGE_BYTES:
                raise ValueError(f"expected at most {MAX_MESSAGE_BYTES} bytes, got {len(data)}")
            self._evaluate(name, data)
        except (EdgeVisionError, ValueError, RuntimeError) as error:  # RuntimeError: cannot be deserialized.
            self.refuse_message(name, error)

    @property
    def _needed(self) -> set[str]:
        """The topics on which the rules are evaluated."""
        return {RULE_INPUT[kind] for kind in self._watch.kinds()}

    def _evaluate(self, name: str, data: bytes) -> None:
        watch = self._watch
        if name == "label_info":
            names = {one.class_id: one.class_name for one in deserialize_message(data, LabelInfo).class_map}
            self._labels = tuple(names.get(i, str(i)) for i in range(max(names, default=-1) + 1))
        elif name == "zones":
            self._zones = Zones.parse(deserialize_message(data, String).data.splitlines())
        elif name == "detections":
            found = detections_from_message(deserialize_message(data, Detection2DArray)).valid()
            watch.on_detections(found, self._labels, time.monotonic_ns(), self._size_px, self._zones)
        else:
            for status in deserialize_message(data, DiagnosticArray).status:
                values = status_values(status)
                if name != "/diagnostics":
                    watch.on_status(values)
                elif status.hardware_id == self.camera and status.name.endswith("output"):
                    watch.on_output(status.level[0], values)
                elif status.hardware_id == self.camera and status.name.endswith("system"):
                    watch.on_system(values)

    def _log(self, severity: str, text: str) -> None:
        if severity == "info":
            self.structured_log.log(severity, text, "recorder")
        else:
            self.log_throttled(severity, text, text[:20], "recorder")

    # Triggers.
    def _on_rule(self, rule: Rule) -> None:
        if recorder := self._recorder:
            recorder.trigger(rule.slug, by_rule=True)

    def _answer_snapshot(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        recorder = self._recorder
        trouble = recorder.trigger("snapshot") if recorder else f"expected an active node, it is {self.state}"
        response.success = not trouble
        response.message = trouble or f"recording into {recorder.folder.path if recorder else ''}"
        return response

    # Reports.
    def health(self) -> tuple[int, str]:
        trouble = self._recorder.trouble if self._recorder else ""
        trouble = trouble or self._watch.trouble(self._labels, self._zones)
        return (WARN, trouble) if trouble else (OK, "running")

    def status_values(self) -> dict[str, Any]:
        own = {"rules": ", ".join(rule.text for rule in self._watch.rules)}
        return {**own, **(self._recorder.status() if self._recorder else {})}

    def reset_stats(self) -> None:
        if self._recorder:
            self._recorder.reset_stats()


def _checked_rules(texts: list[str]) -> tuple[Rule, ...]:
    try:
        return parse_rules(texts)
    except ValueError as error:
        raise ValueError(f"rules: {error}") from None


def _is_latched(qos: QoSProfile) -> bool:
    return bool(qos.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL)


def _qos(qos: QoSProfile) -> str:
    return qos_text(qos.depth, latched=_is_latched(qos))


def main(args: list[str] | None = None) -> int:
    return run.main([RecorderNode], "recorder_node", args)
