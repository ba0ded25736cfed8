"""Every parameter, topic and service of the gate. Imports no ROS."""

from __future__ import annotations

from edge_vision.gate.frame_gate import DEFAULT_PRESET, PRESETS, GateConfig
from edge_vision.gate.load_cap import LoadLimits
from edge_vision.nodes.interface.types import (
    COMMON,
    DETECTION_ARRAY,
    DIAGNOSTIC_ARRAY,
    ENABLE,
    IMAGE,
    IMAGES,
    RESET,
    STATUS,
    STRING,
    VISION_INFO,
    NodeSpec,
    Param,
    Range,
    Topic,
    at_start,
    compressed,
)

_GATE = GateConfig()
_LIMITS = LoadLimits()
_PRIORS = ("none", "imu", "odometry")


def _setting(name: str, description: str, limits: Range | None = None) -> Param:
    """A setting of the core's gate, with its default there."""
    return Param(name, getattr(_GATE, name), description, limits)


_SCHEDULE = (
    at_start(
        "preset",
        DEFAULT_PRESET,
        "Sets the defaults of max_delay_ms, min_fidelity and max_blind_ms; given values win. recall: "
        "every frame that differs is inferred; balanced; economy: fewer inferences, later.",
        choices=tuple(PRESETS),
    ),
    _setting("enabled", "Enables the gate; if false, every frame passes, whatever the limits of the load."),
    _setting(
        "max_delay_ms",
        "Limits the time from an object's first frame to the inference that can find it; twice that where "
        "the tracks explain all change.",
        Range("ms", 1.0, 60000.0),
    ),
    _setting(
        "min_fidelity",
        "Sets how well the published boxes agree with every-frame detection, as a share of the detector's "
        "agreement with itself, estimated at run time; needs the detector's publish_tracks and "
        "publish_low_score. 0 = max_delay_ms alone decides.",
        Range("0..1", 0.0, 1.0),
    ),
    _setting(
        "max_blind_ms",
        "Limits the time without inference while the picture does not change.",
        Range("ms", 1.0, 60000.0),
    ),
    _setting(
        "max_rate_hz",
        "Limits the frames per second that pass, even where that breaks max_delay_ms; 0 = no limit.",
        Range("Hz", 0.0, 1000.0),
    ),
    _setting(
        "max_gap_ms",
        "Passes the next frame after a pause of the camera of more than this.",
        Range("ms", 1.0, 600000.0),
    ),
    _setting(
        "luma_width_px",
        "Sets the width of the small luma image that is compared; a smaller one is faster and sees less.",
        Range("px", 16, 1920),
    ),
)
_AUDIT = (
    _setting(
        "audit_rate",
        "Sets the share of the skipped unchanged frames, drawn at random, that are inferred anyway; 0 = no "
        "audit.",
        Range("0..1", 0.0, 1.0),
    ),
    _setting("audit_max_hz", "Limits the mean rate of audited frames.", Range("Hz", 0.0, 1000.0)),
    _setting(
        "max_miss_rate",
        "Treats unchanged frames like changed ones while the audit shows, with 95 % confidence, that objects "
        "are missed on more than this share of them; 1 = never.",
        Range("0..1", 0.0, 1.0),
    ),
)

_GOVERNOR = (
    Param(
        "cpu_budget_percent",
        _LIMITS.cpu_budget_percent,
        "Limits the CPU time of this process and the detector's, in percent of all cores. Above it, first "
        "min_fidelity is given up, then a faster model of `ladder` is loaded, then max_delay_ms is given up. "
        "0 = no limit.",
        Range("%", 0.0, 100.0),
    ),
    Param(
        "max_power_w",
        _LIMITS.max_power_w,
        "Lowers the CPU time in the same order while the machine's power exceeds this; 0 = no limit.",
        Range("W", 0.0, 100000.0),
    ),
    Param(
        "max_temperature_c",
        _LIMITS.max_temperature_c,
        "Lowers the CPU time in the same order while the hottest sensor exceeds this; 0 = no limit. With any "
        "of the three limits, throttling does so, too.",
        Range("C", 0.0, 150.0),
    ),
    Param(
        "ladder",
        "",
        "Takes faster models for the detector from this ladder.yaml of the optimizer; empty = none.",
    ),
)


def _angle(name: str, default: float, axis: str) -> Param:
    description = f"Turns the camera's optical frame on the IMU or robot about the fixed {axis} axis."
    return Param(name, default, description, Range("deg", -360.0, 360.0))


EGO = (
    Param(
        "ego_prior",
        "none",
        "Take the camera's rotation from the robot's gyroscope or odometry as a first guess.",
        choices=_PRIORS,
    ),
    Param(
        "ego_focal_px", 0.0, "The camera's focal length; 0 = from camera_info.", Range("px", 0.0, 100000.0)
    ),
    # The defaults: a camera that looks ahead, on a body with x ahead, y left and z up (REP 103).
    _angle("ego_roll_deg", -90.0, "x"),
    _angle("ego_pitch_deg", 0.0, "y"),
    _angle("ego_yaw_deg", -90.0, "z"),
)

GATE = NodeSpec(
    "gate",
    "Passes the frames that must be inferred to keep the promised delay and fidelity.",
    (*_SCHEDULE, *_GOVERNOR, *_AUDIT, *EGO, *IMAGES, *COMMON),
    (
        Topic("image_raw", IMAGE, "in", "The camera. Best effort, depth 1."),
        compressed("image_raw"),
        Topic(
            "detections",
            DETECTION_ARRAY,
            "in",
            "What the detector found, for the schedule and the audit. Only while it is in another process.",
        ),
        Topic(
            "detections_low_score",
            DETECTION_ARRAY,
            "in",
            "What scored less, for min_fidelity. Only while the detector is in another process.",
        ),
        Topic(
            "vision_info",
            VISION_INFO,
            "in",
            "Which model runs: after a change a frame passes. Only while the detector is in another process.",
        ),
        Topic("zones", STRING, "in", "Where changes count. Only while the detector is in another process."),
        Topic(
            "detector/status",
            DIAGNOSTIC_ARRAY,
            "in",
            "The detector's CPU time, for cpu_budget_percent. Only while the detector is in another process.",
        ),
        Topic(
            "imu",
            "sensor_msgs/msg/Imu",
            "in",
            "Angular velocity. Only with ego_prior: imu.",
            (("ego_prior", ("imu",)),),
        ),
        Topic(
            "odom",
            "nav_msgs/msg/Odometry",
            "in",
            "Orientation. Only with ego_prior: odometry.",
            (("ego_prior", ("odometry",)),),
        ),
        Topic(
            "camera_info",
            "sensor_msgs/msg/CameraInfo",
            "in",
            "Focal length. Only with an ego_prior and ego_focal_px: 0.",
            (("ego_prior", ("imu", "odometry")), ("ego_focal_px", (0.0,))),
        ),
        Topic("gate/image", IMAGE, "out", "The frames that passed, as they came."),
        Topic(
            "gate_events",
            DIAGNOSTIC_ARRAY,
            "out",
            "One event per frame: decision, reason, regions, camera motion.",
        ),
        Topic(
            "~/regions",
            "vision_msgs/msg/BoundingBox2DArray",
            "out",
            "What has changed on each frame that passes; empty = unknown. Only while somebody subscribes.",
        ),
        STATUS,
    ),
    (ENABLE, RESET),
    PRESETS,
)
