"""Parameters, topics and services of the nodes that run a model: cascade and detector. Imports no ROS."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from edge_vision.backends import FALLBACK, known_backends
from edge_vision.backends.base import DELEGATE_FOLDERS, PRECISIONS
from edge_vision.cascade.cascade import CascadeConfig
from edge_vision.cascade.stages import DEFAULT_THRESHOLD
from edge_vision.core.geometry.zones import Zones
from edge_vision.core.model_spec import MAX_DETECTIONS
from edge_vision.detect.report_filter import ReportConfig, check_names
from edge_vision.detect.roi_planner import RoiConfig
from edge_vision.nodes.interface.types import (
    COMMON,
    COMPRESSED_IMAGE,
    DETECTION_ARRAY,
    DIAGNOSTIC_ARRAY,
    ENABLE,
    IMAGE,
    IMAGES,
    LABEL_INFO,
    RESET,
    STATUS,
    STRING,
    VISION_INFO,
    NodeSpec,
    Param,
    Range,
    Topic,
    at_configure,
    at_start,
    compressed,
)

_CASCADE = CascadeConfig()
_ROI = RoiConfig()
_REPORT = ReportConfig()


def _has_classifier(values: Mapping[str, object]) -> bool:
    return bool(values.get("classifier"))


def _model_params(model: str, model_help: str, applies: str) -> tuple[Param, ...]:
    param = partial(Param, applies=applies)
    return (
        param("model", model, model_help),
        param(
            "backend",
            "auto",
            f"Selects the runtime: auto (the fastest, measured once), {', '.join(known_backends())}, or "
            "another package's.",
        ),
        param(
            "device", "auto", "Selects the device: auto, cpu, gpu, gpu:1, npu, cuda, ...: docs/backends.md."
        ),
        at_start(
            "delegate_folders",
            list(DELEGATE_FOLDERS),
            "Allows LiteRT delegates in `device` below these folders only.",
        ),
        param(
            "precision",
            "auto",
            "Selects the precision; auto = on CPUs int8 if the bundle has it, else its first graph.",
            choices=PRECISIONS,
        ),
        param(
            "threads",
            0,
            "Sets the backend's CPU threads; 0 = one per physical core.",
            Range("threads", 0, 256),
        ),
        param("strict_backend", False, "Refuses other backends and devices."),
        param("fallback", list(FALLBACK), "Tries these in order if the backend fails."),
        at_start("remote_url", "", "Sets kserve's server: docs/remote.md."),
        param("route", "remote", "Selects where kserve infers.", choices=("remote", "auto")),
    )


CASCADE = NodeSpec(
    "cascade",
    "Classifies frames with a small model, and forwards those that are worth a detector run.",
    (
        Param("enabled", _CASCADE.enabled, "Enables the cascade; if false, every frame is accepted."),
        *_model_params(
            "",
            "Selects the classifier bundle, by name or folder; empty = off, every frame is accepted.",
            "configure",
        ),
        at_configure(
            "next_models",
            [],
            "Adds classifier bundles, each of which classifies what the previous ones were unsure about.",
        ),
        at_configure(
            "wanted_labels",
            [],
            "Selects the labels that are worth a detector run, by words in them, as in ['dog', 'bicycle']; "
            "empty = those of the bundles, which must be fitted for a cascade.",
        ),
        Param(
            "score_threshold",
            -1.0,
            "Accepts a crop when the probabilities of the wanted labels sum to at least this; -1 = the "
            f"bundle's threshold, or {DEFAULT_THRESHOLD} if it is not fitted for a cascade.",
            Range("0..1", -1.0, 1.0),
        ),
        Param(
            "reject_threshold",
            -1.0,
            "Rejects a crop below this probability; between the two thresholds a stage is unsure. -1 = the "
            "bundle's threshold, or score_threshold if it is not fitted for a cascade.",
            Range("0..1", -1.0, 1.0),
        ),
        Param(
            "classifier_input",
            _CASCADE.classifier_input,
            "Selects what is classified: the gate's regions (the whole frame if there are none), or the "
            "frame.",
            choices=("regions", "frame"),
        ),
        Param(
            "max_crops",
            _CASCADE.max_crops,
            "Accepts a frame that would need more crops, as the detector would be as fast.",
            Range("crops", 1, 1000),
        ),
        Param(
            "round_robin",
            _CASCADE.round_robin,
            "Classifies this many tiles outside the regions, in turn, with bundles that are fitted for a "
            "cascade.",
            Range("tiles", 0, 100),
        ),
        Param(
            "max_blind_ms",
            _CASCADE.max_blind_ms,
            "Accepts a frame at the latest this long after the previous accepted one.",
            Range("ms", 1.0, 60000.0),
        ),
        *IMAGES,
        *COMMON,
    ),
    (
        Topic("gate/image", IMAGE, "in", "Frames that passed the gate."),
        compressed("gate/image"),
        Topic("gate_events", DIAGNOSTIC_ARRAY, "in", "The gate's frame events."),
        Topic("image_accepted", IMAGE, "out", "Accepted frames, unchanged."),
        Topic(
            "cascade_events",
            DIAGNOSTIC_ARRAY,
            "out",
            "One frame event per frame, including those of the gate.",
        ),
        STATUS,
    ),
    (ENABLE, RESET),
)

DETECTOR = NodeSpec(
    "detector",
    "Runs a model bundle on the selected backend, and publishes the detections.",
    (
        Param("enabled", True, "Enables inference; if false, frames are rejected as `disabled`."),
        *_model_params(
            "nanodet",
            "Selects the detector bundle, by name or folder. A new one is loaded and checked while the old "
            "one runs.",
            "live",
        ),
        at_configure(
            "classifier", "", "Classifies each detection with this bundle on `classifications`; empty = off."
        ),
        at_configure(
            "guard",
            True,
            "Compares a model for some scenes only with its teacher each second, which takes over where they "
            "disagree.",
        ),
        Param(
            "watchdog_ms",
            800.0,
            "Switches to another backend when an inference takes longer than this and five times the median; "
            "0 = never.",
            Range("ms", 0.0, 600000.0),
        ),
        Param(
            "score_threshold",
            -1.0,
            "Sets the minimum score of a detection; -1 = the bundle's threshold.",
            Range("0..1", -1.0, 1.0),
        ),
        Param(
            "iou_threshold",
            -1.0,
            "Sets the IoU above which NMS drops the lower score; -1 = the bundle's threshold.",
            Range("0..1", -1.0, 1.0),
        ),
        Param(
            "max_detections",
            0,
            "Limits the detections per frame; 0 = the bundle's limit.",
            Range("detections", 0, MAX_DETECTIONS),
        ),
        Param(
            "wanted_classes",
            list(_REPORT.wanted_classes),
            "Reports only objects with these labels of the model; empty = all.",
            validate=check_names,
        ),
        Param(
            "min_box_px",
            _REPORT.min_box_px,
            "Sets the minimum width and height of a reported box.",
            Range("px", 0, 16384),
        ),
        Param(
            "zones",
            [],
            "Reports only objects that stand in an include zone, if there are any, and in no exclude zone, "
            "as in ['exclude road 0,0.6 1,0.6 1,1 0,1']: see docs/zones.md.",
            validate=Zones.parse,
        ),
        Param(
            "publish_tracks",
            True,
            "Tracks objects: sets their ids, and publishes `tracks`, which also has the skipped frames.",
        ),
        Param(
            "publish_low_score",
            True,
            "Publishes detections from half of score_threshold up to it on `detections_low_score`, also for "
            "the gate, which learns the noise from them.",
        ),
        Param(
            "roi_mode",
            _ROI.roi_mode,
            "Selects what is inferred: the whole frame, or crops around changed regions and known objects; "
            "auto = one crop where that costs no more.",
            choices=("full", "crops", "auto"),
        ),
        Param(
            "max_crops",
            _ROI.max_crops,
            "Limits the crops per frame, each of which is one inference; fewer crops are larger.",
            Range("crops", 1, 32),
        ),
        Param(
            "budget_ms",
            _ROI.budget_ms,
            "Limits the time for all crops of a frame: above it, max_crops is halved, then restored one by "
            "one. 0 = no limit.",
            Range("ms", 0.0, 60000.0),
        ),
        Param(
            "min_crop_px",
            _ROI.min_crop_px,
            "Sets the minimum width of a crop; 0 = the model's input width.",
            Range("px", 0, 16384),
        ),
        Param(
            "full_frame_interval_ms",
            _ROI.full_frame_interval_ms,
            "Infers the whole frame in addition to crops after this long.",
            Range("ms", 0.0, 60000.0),
        ),
        *IMAGES,
        *COMMON,
    ),
    (
        Topic("image_accepted", IMAGE, "in", "Frames accepted by the cascade, or any camera."),
        compressed("image_accepted"),
        Topic(
            "cascade_events", DIAGNOSTIC_ARRAY, "in", "Frame events for the frame accounting and the tracks."
        ),
        Topic("detections", DETECTION_ARRAY, "out", "Per inferred frame; empty = no object."),
        Topic(
            "tracks",
            DETECTION_ARRAY,
            "out",
            "Per frame that was not lost: the detections, or predicted boxes. With publish_tracks.",
            (("publish_tracks", (True,)),),
        ),
        Topic(
            "detections_low_score",
            DETECTION_ARRAY,
            "out",
            "Per inferred frame: detections between half of the threshold and the threshold. With "
            "publish_low_score.",
            (("publish_low_score", (True,)),),
        ),
        Topic(
            "masks",
            IMAGE,
            "out",
            "Per inferred frame, mono16: 1 + the index of the object in `detections`, 0 for none. Only with "
            "a model of masks, and while somebody subscribes.",
            (("shapes", ("masks",)),),
        ),
        Topic(
            "masks/polygons",
            "geometry_msgs/msg/PolygonInstanceStamped",
            "out",
            "Per object, the outline of its mask in pixels; the id is its value in `masks`. As `masks`.",
            (("shapes", ("masks",)),),
        ),
        Topic(
            "keypoints",
            "sensor_msgs/msg/PointCloud2",
            "out",
            "Per inferred frame: row i has the key points of object i in `detections`, u and v in pixels "
            "and a score. Only with a model of key points, and while somebody subscribes.",
            (("shapes", ("keypoints",)),),
        ),
        Topic(
            "classifications",
            DETECTION_ARRAY,
            "out",
            "As `detections`, with class and score by `classifier`. Only while somebody subscribes.",
            only_if=_has_classifier,
        ),
        Topic(
            "classifications/label_info",
            LABEL_INFO,
            "out",
            "Latched: class names of `classifier`.",
            only_if=_has_classifier,
        ),
        Topic("label_info", LABEL_INFO, "out", "Latched: class names and the threshold."),
        Topic("vision_info", VISION_INFO, "out", "Latched: name, version and hash of the model."),
        Topic("zones", STRING, "out", "Latched: the parameter `zones`, one per line."),
        Topic(
            "~/debug_image",
            IMAGE,
            "out",
            "Every frame with its boxes, dashed if predicted, and zones. Only while somebody subscribes.",
        ),
        Topic(
            "~/debug_image/compressed",
            COMPRESSED_IMAGE,
            "out",
            "The same as JPEG. Only while somebody subscribes.",
        ),
        Topic(
            "tracks/annotations",
            "foxglove_msgs/msg/ImageAnnotations",
            "out",
            "The boxes for Foxglove. Only where foxglove_msgs is installed, and while somebody subscribes.",
            package="foxglove_msgs",
        ),
        STATUS,
    ),
    (ENABLE, RESET),
)
