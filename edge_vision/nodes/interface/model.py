"""Every parameter, topic and service of the nodes that run a model: cascade and detector. Imports no ROS."""

from __future__ import annotations

from edge_vision.backends import FALLBACK, known_backends
from edge_vision.backends.base import PRECISIONS
from edge_vision.cascade.cascade import CascadeConfig
from edge_vision.cascade.stages import DEFAULT_THRESHOLD
from edge_vision.detect.roi_planner import RoiConfig
from edge_vision.nodes.interface.types import (
    COMMON,
    ENABLE,
    IMAGES,
    RESET,
    STATUS,
    NodeSpec,
    Param,
    Topic,
    compressed,
)

_CASCADE = CascadeConfig()
_LOOKS = RoiConfig()


def _model_params(model: str, model_help: str, applies: str) -> tuple[Param, ...]:
    return (
        Param("model", model, model_help, applies=applies),
        Param(
            "backend",
            "auto",
            f"Runtime: auto (the fastest here, measured once), {', '.join(known_backends())}, or one that "
            "another package registers.",
            applies=applies,
        ),
        Param(
            "device",
            "auto",
            "Device of the backend: auto, cpu, gpu, gpu:1, npu, cuda, ...; see docs/backends.md.",
            applies=applies,
        ),
        Param("precision", "auto", "Precision asked for.", choices=PRECISIONS, applies=applies),
        Param(
            "threads",
            0,
            "CPU threads of the backend; 0 = one per physical core.",
            "threads",
            0,
            256,
            applies=applies,
        ),
        Param(
            "strict_backend",
            False,
            "Refuse to run on another backend or device than the one asked for.",
            applies=applies,
        ),
        Param(
            "fallback",
            list(FALLBACK),
            "Backends to try in turn where the one asked for cannot run, or fails while it runs.",
            applies=applies,
        ),
    )


CASCADE = NodeSpec(
    "cascade",
    "Light classifiers decide which of the passed frames the detector runs on.",
    (
        Param("enabled", _CASCADE.enabled, "Off = every frame is accepted."),
        *_model_params(
            "", "Classifier bundle, a name or a folder; empty = off, every frame is accepted.", "configure"
        ),
        Param(
            "next_models",
            [],
            "Classifier bundles of the further stages, in order; each classifies what the one before was "
            "unsure about.",
            applies="configure",
        ),
        Param(
            "wanted_labels",
            [],
            "Terms in the classifiers' labels that are worth the detector, as in ['dog', 'bicycle']; empty = "
            "the labels of the bundles, which must then have been fitted for a cascade.",
            applies="configure",
        ),
        Param(
            "score_threshold",
            -1.0,
            "A crop is accepted if the summed probability of the wanted labels reaches this; -1 = the "
            f"bundle's threshold, or {DEFAULT_THRESHOLD} if it was not fitted for a cascade.",
            "0..1",
            -1.0,
            1.0,
        ),
        Param(
            "reject_threshold",
            -1.0,
            "A crop is rejected below this probability; between the two thresholds a stage is unsure. -1 = "
            "the bundle's threshold, or score_threshold if it was not fitted for a cascade.",
            "0..1",
            -1.0,
            1.0,
        ),
        Param(
            "classifier_input",
            _CASCADE.classifier_input,
            "Classify the gate's regions (the whole frame if there are none), or always the whole frame.",
            choices=("regions", "frame"),
        ),
        Param(
            "max_crops",
            _CASCADE.max_crops,
            "A frame that needs more crops than this is accepted without classifying them.",
            "crops",
            1,
            1000,
        ),
        Param(
            "round_robin",
            _CASCADE.round_robin,
            "Tiles outside the regions that are classified per frame, in turn, by bundles that were fitted "
            "for a cascade.",
            "tiles",
            0,
            100,
        ),
        Param(
            "max_blind_ms",
            _CASCADE.max_blind_ms,
            "Longest time between two accepted frames, as far as frames arrive.",
            "ms",
            1.0,
            60000.0,
        ),
        *IMAGES,
        *COMMON,
    ),
    (
        Topic("gate/image", "sensor_msgs/msg/Image", "in", "What the gate let pass."),
        compressed("gate/image"),
        Topic("gate_events", "diagnostic_msgs/msg/DiagnosticArray", "in", "The gate's ticks."),
        Topic(
            "image_accepted", "sensor_msgs/msg/Image", "out", "The frames that were accepted, as they came."
        ),
        Topic(
            "cascade_events",
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
        *_model_params(
            "ssdlite_mobilenet_v2_coco",
            "Detector bundle, a name or a folder. A new one is loaded and checked while the old one serves.",
            "live",
        ),
        Param(
            "watchdog_ms",
            800.0,
            "A run that takes longer (and five times longer than usual) hangs: another backend takes over. "
            "0 = wait.",
            "ms",
            0.0,
            600000.0,
        ),
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
        Param(
            "publish_tracked",
            False,
            "Track: give objects ids, and publish those known on skipped frames on `detections_tracked`.",
        ),
        Param(
            "publish_low_score",
            False,
            "Publish detections that score between half of score_threshold and score_threshold on "
            "`detections_low_score`, and pass them to the gate; see the gate's saturated_stretch.",
        ),
        Param(
            "roi_mode",
            _LOOKS.roi_mode,
            "Look at the whole frame, or more closely at crops around what is new and what is known; auto = "
            "at one crop where that costs no more.",
            choices=("full", "crops", "auto"),
        ),
        Param(
            "max_crops",
            _LOOKS.max_crops,
            "Most crops of a frame, each one run of the model; fewer crops are larger ones.",
            "crops",
            1,
            32,
        ),
        Param(
            "budget_ms",
            _LOOKS.budget_ms,
            "Time for all runs of a frame on crops: beyond it, crops are halved, and restored one at a time. "
            "0 = none.",
            "ms",
            0.0,
            60000.0,
        ),
        Param("min_crop_px", _LOOKS.min_crop_px, "Least width of a crop; 0 = the model's.", "px", 0, 16384),
        Param(
            "full_frame_interval_ms",
            _LOOKS.full_frame_interval_ms,
            "With crops, the whole frame is looked at as well this long after the last time.",
            "ms",
            0.0,
            60000.0,
        ),
        *IMAGES,
        *COMMON,
    ),
    (
        Topic("image_accepted", "sensor_msgs/msg/Image", "in", "What the cascade accepted, or any camera."),
        compressed("image_accepted"),
        Topic(
            "cascade_events",
            "diagnostic_msgs/msg/DiagnosticArray",
            "in",
            "The ticks, which keep the books and move the tracks.",
        ),
        Topic(
            "detections",
            "vision_msgs/msg/Detection2DArray",
            "out",
            "Per inferred frame; empty = looked, nothing there.",
        ),
        Topic(
            "detections_tracked",
            "vision_msgs/msg/Detection2DArray",
            "out",
            "Per gated or rejected frame: where known objects should be now. With publish_tracked.",
            (("publish_tracked", (True,)),),
        ),
        Topic(
            "detections_low_score",
            "vision_msgs/msg/Detection2DArray",
            "out",
            "Per inferred frame: what scored half of the threshold at least, but not the threshold. With "
            "publish_low_score.",
            (("publish_low_score", (True,)),),
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
