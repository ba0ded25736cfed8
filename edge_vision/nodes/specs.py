"""Every parameter, topic and service of every node, in one place: the code, the README's tables and the
shipped YAML are made from it. Imports no ROS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_vision.core.cascade import CascadeConfig
from edge_vision.core.gate import GateConfig


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter of a node.

    applies: "live" (acts at once), "configure" (refused while the node is configured, acts when it is
    configured next) or "start" (read-only). An int is taken where a float is expected.
    """

    name: str
    default: Any
    description: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    applies: str = "live"

    @property
    def type_name(self) -> str:
        """The type as ROS users know it."""
        if isinstance(self.default, (list, tuple)):
            return "string[]"
        return {bool: "bool", int: "int", float: "double", str: "string"}[type(self.default)]

    @property
    def constraints(self) -> str:
        """What is allowed, in words; "" where everything of the type is."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.low is None and self.high is None:
            return ""
        low = "" if self.low is None else f"{self.low:.10g}"
        high = "" if self.high is None else f"{self.high:.10g}"
        return f"{low}..{high}"

    def check(self, value: Any) -> Any:
        """The value, its type put right. Raises ValueError that names what was expected and what came."""
        value = self._typed(value)
        if self.choices and value not in self.choices:
            raise ValueError(f"{self.name}: expected {self.constraints}, got '{value}'")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            low = float("-inf") if self.low is None else self.low
            high = float("inf") if self.high is None else self.high
            if not low <= value <= high:
                raise ValueError(
                    f"{self.name}: expected {self.constraints} {self.unit}".rstrip() + f", got {value}"
                )
        return value

    def _typed(self, value: Any) -> Any:
        if isinstance(self.default, (list, tuple)):
            if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
                return list(value)
        elif (
            isinstance(self.default, float)
            and isinstance(value, (int, float))
            and not isinstance(value, bool)
        ):
            return float(value)
        elif type(value) is type(self.default):
            return value
        raise ValueError(f"{self.name}: expected {self.type_name}, got {type(value).__name__} '{value}'")


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of a node. direction: "in" or "out"."""

    name: str
    type: str
    direction: str
    description: str


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """All that a user sees of a node."""

    name: str
    summary: str
    params: tuple[Param, ...]
    topics: tuple[Topic, ...]
    services: tuple[tuple[str, str, str], ...] = ()

    def param(self, name: str) -> Param:
        """The parameter of this name. Raises KeyError."""
        return {p.name: p for p in self.params}[name]


_GATE = GateConfig()
_CASCADE = CascadeConfig()

AUTOSTART = Param(
    "autostart",
    True,
    "Configure and activate by itself, and try again every 5 s where that fails.",
    applies="start",
)
IMAGE_TRANSPORT = Param(
    "image_transport",
    "raw",
    "Subscribe to the raw image, or to JPEG/PNG on `<topic>/compressed`.",
    choices=("raw", "compressed"),
    applies="configure",
)
_BACKENDS = "auto takes the best that is installed"

ENABLE = ("~/enable", "std_srvs/srv/SetBool", "The same as setting `enabled`.")
RESET = ("~/reset_stats", "std_srvs/srv/Trigger", "Start new books and new latency figures.")
STATUS = Topic(
    "~/status", "diagnostic_msgs/msg/DiagnosticArray", "out", "State, books, rates and latencies, at 1 Hz."
)


def _compressed(topic: str) -> Topic:
    return Topic(
        f"{topic}/compressed",
        "sensor_msgs/msg/CompressedImage",
        "in",
        "Instead, with image_transport: compressed.",
    )


def _model_params(model: str, model_help: str) -> tuple[Param, ...]:
    return (
        Param("model", model, model_help, applies="configure"),
        Param(
            "backend",
            "auto",
            f"Runtime: auto, onnxruntime, openvino, or one that another package registers; {_BACKENDS}.",
            applies="configure",
        ),
        Param("device", "auto", "Device of the backend: auto, cpu, gpu, npu, cuda, ...", applies="configure"),
        Param("precision", "auto", "Precision asked for: auto, fp32, fp16, bf16, int8.", applies="configure"),
        Param(
            "threads",
            0,
            "CPU threads of the backend; 0 = one per physical core.",
            "threads",
            0,
            256,
            applies="configure",
        ),
        Param(
            "strict_backend",
            False,
            "Refuse to start on another backend or device than the one asked for.",
            applies="configure",
        ),
    )


GATE = NodeSpec(
    "gate",
    "Lets a frame pass when something new could be seen in it.",
    (
        Param("enabled", _GATE.enabled, "Off = every frame passes."),
        Param(
            "max_rate_hz",
            _GATE.max_rate_hz,
            "Most frames per second that pass; 0 = no limit.",
            "Hz",
            0.0,
            1000.0,
        ),
        Param(
            "max_blind_ms",
            _GATE.max_blind_ms,
            "A frame passes at the latest this long after the last one that did.",
            "ms",
            1.0,
            60000.0,
        ),
        Param(
            "pixel_threshold",
            _GATE.pixel_threshold,
            "A pixel has changed when its luma differs by more than this from the last frame that passed.",
            "grey levels",
            1,
            254,
        ),
        Param(
            "min_changed_area",
            _GATE.min_changed_area,
            "Share of the picture that must have changed for a frame to pass as motion.",
            "0..1",
            0.0,
            1.0,
        ),
        Param(
            "luma_width_px",
            _GATE.luma_width_px,
            "Width of the small luma image that is compared.",
            "px",
            16,
            1920,
        ),
        IMAGE_TRANSPORT,
        AUTOSTART,
    ),
    (
        Topic("image_raw", "sensor_msgs/msg/Image", "in", "The camera. Best effort, depth 1."),
        _compressed("image_raw"),
        Topic("image_gated", "sensor_msgs/msg/Image", "out", "The frames that passed, as they came."),
        Topic(
            "gate_ticks",
            "diagnostic_msgs/msg/DiagnosticArray",
            "out",
            "One tick per frame: decision, reason, regions.",
        ),
        STATUS,
    ),
    (ENABLE, RESET),
)

CASCADE = NodeSpec(
    "cascade",
    "A light classifier looks first; the detector runs where it is worth it.",
    (
        Param("enabled", _CASCADE.enabled, "Off = every frame is accepted."),
        *_model_params("", "Classifier bundle, a name or a folder; empty = off, every frame is accepted."),
        Param(
            "wanted_labels",
            [],
            "Words of the classifier's labels that are worth the detector, as in ['dog', 'bicycle'].",
            applies="configure",
        ),
        Param(
            "score_threshold",
            _CASCADE.score_threshold,
            "A frame is accepted when the wanted labels together reach this probability somewhere.",
            "0..1",
            0.0,
            1.0,
        ),
        Param(
            "look_at",
            _CASCADE.look_at,
            "Classify the gate's regions (the whole frame where it gives none), or always the whole frame.",
            choices=("regions", "frame"),
        ),
        Param(
            "max_blind_ms",
            _CASCADE.max_blind_ms,
            "A frame is accepted at the latest this long after the last one that was.",
            "ms",
            1.0,
            60000.0,
        ),
        IMAGE_TRANSPORT,
        AUTOSTART,
    ),
    (
        Topic("image_gated", "sensor_msgs/msg/Image", "in", "What the gate let pass."),
        _compressed("image_gated"),
        Topic("gate_ticks", "diagnostic_msgs/msg/DiagnosticArray", "in", "The gate's ticks."),
        Topic(
            "image_accepted", "sensor_msgs/msg/Image", "out", "The frames that were accepted, as they came."
        ),
        Topic(
            "cascade_ticks",
            "diagnostic_msgs/msg/DiagnosticArray",
            "out",
            "One tick per frame, the gate's included.",
        ),
        STATUS,
    ),
    (ENABLE, RESET),
)

DETECTOR = NodeSpec(
    "detector",
    "Runs a model bundle on the backend chosen by parameter, and publishes what it found.",
    (
        Param("enabled", True, "Off = frames are rejected unseen, and counted so."),
        *_model_params("ssdlite_mobilenet_v2_coco", "Detector bundle, a name or a folder."),
        Param(
            "score_threshold", -1.0, "Least score of a detection; -1 = the bundle's own.", "0..1", -1.0, 1.0
        ),
        Param(
            "iou_threshold",
            -1.0,
            "Overlap above which the lower score goes; -1 = the bundle's own.",
            "0..1",
            -1.0,
            1.0,
        ),
        Param(
            "max_detections", 0, "Most detections per frame; 0 = the bundle's own.", "detections", 0, 10000
        ),
        IMAGE_TRANSPORT,
        AUTOSTART,
    ),
    (
        Topic("image_accepted", "sensor_msgs/msg/Image", "in", "What the cascade accepted, or any camera."),
        _compressed("image_accepted"),
        Topic(
            "cascade_ticks", "diagnostic_msgs/msg/DiagnosticArray", "in", "The ticks, which keep the books."
        ),
        Topic(
            "detections",
            "vision_msgs/msg/Detection2DArray",
            "out",
            "Per inferred frame; empty = looked, nothing there.",
        ),
        Topic(
            "label_info",
            "vision_msgs/msg/LabelInfo",
            "out",
            "Latched: the names of the class ids, and the threshold.",
        ),
        Topic(
            "vision_info", "vision_msgs/msg/VisionInfo", "out", "Latched: the model, its version and hash."
        ),
        Topic(
            "~/debug_image",
            "sensor_msgs/msg/Image",
            "out",
            "The boxes drawn in, only while somebody subscribes.",
        ),
        STATUS,
    ),
    (ENABLE, RESET),
)

DIAGNOSTICS = NodeSpec(
    "diagnostics",
    "Gathers what the nodes report, and the process's resources, for /diagnostics.",
    (
        Param(
            "watched_nodes",
            ["source", "gate", "cascade", "detector"],
            "Nodes whose `~/status` is gathered, by name, within this namespace.",
            applies="configure",
        ),
        Param("max_age_ms", 1000.0, "Age at output (p95) above which it warns.", "ms", 1.0, 600000.0),
        Param("max_rss_mb", 1024.0, "Memory of a process above which it warns.", "MB", 1.0, 1048576.0),
        Param(
            "stale_ms", 3000.0, "A node that reported nothing for this long is STALE.", "ms", 1100.0, 600000.0
        ),
        AUTOSTART,
    ),
    (
        Topic(
            "<node>/status", "diagnostic_msgs/msg/DiagnosticArray", "in", "What each watched node reports."
        ),
        Topic("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", "out", "REP-107, at 1 Hz."),
        STATUS,
    ),
    (RESET,),
)

SOURCE = NodeSpec(
    "source",
    "Plays a video file, a V4L2 device or a network stream as a camera, and survives its loss.",
    (
        Param(
            "uri",
            "",
            "A file, a device (/dev/video0, or 0), an rtsp:// or http:// URL; empty = idle.",
            applies="configure",
        ),
        Param(
            "playback_rate",
            1.0,
            "Speed of a file: 1 = real time, 0 = as fast as the pipeline in this process takes frames.",
            "x",
            0.0,
            1000.0,
        ),
        Param("loop", False, "Start a file again at its end."),
        Param("frame_id", "camera", "frame_id of the images.", applies="configure"),
        Param(
            "stamps",
            "clock",
            "Stamp of an image: the node's clock when it was read, or its position in the file, from 1 s on.",
            choices=("clock", "media"),
            applies="configure",
        ),
        Param(
            "open_timeout_ms",
            5000,
            "Longest wait for a device or stream.",
            "ms",
            100,
            600000,
            applies="configure",
        ),
        AUTOSTART,
    ),
    (
        Topic(
            "image_raw",
            "sensor_msgs/msg/Image",
            "out",
            "The images. Published only if somebody outside subscribes.",
        ),
        Topic(
            "source_ticks",
            "diagnostic_msgs/msg/DiagnosticArray",
            "out",
            "One tick per image: its header. Costs little to subscribe to.",
        ),
        STATUS,
    ),
    (RESET,),
)

NODES = (SOURCE, GATE, CASCADE, DETECTOR, DIAGNOSTICS)
