"""Every parameter, topic and service of the gate. Imports no ROS."""

from __future__ import annotations

from typing import Any

from edge_vision.gate.frame_gate import GateConfig
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

_GATE = GateConfig()
_PRIORS = ("none", "imu", "odometry")


def _setting(name: str, description: str, *limits: Any) -> Param:
    """A setting of the core's gate, with its default there. limits: unit, low, high."""
    return Param(name, getattr(_GATE, name), description, *limits)


_POLICY = (
    _setting("enabled", "Off = every frame passes."),
    _setting(
        "min_fidelity",
        "Schedules inferences by a promise instead of by motion: what is published (with the detector's "
        "`publish_tracked`) agrees with every-frame detection at least to this share of the detector's "
        "agreement with itself, estimated at run time. 0.97 = balanced, 0.95 = economy, 0 = off. Set the "
        "detector's `publish_low_score` too.",
        "0..1",
        0.0,
        1.0,
    ),
    _setting(
        "max_delay_ms",
        "With `min_fidelity`: longest time from an object's first frame to the inference that can find it, "
        "while the picture changes.",
        "ms",
        1.0,
        60000.0,
    ),
    _setting("max_rate_hz", "Most frames per second that pass; 0 = no limit.", "Hz", 0.0, 1000.0),
    _setting(
        "max_blind_ms",
        "While the camera stands, a frame passes at the latest this long after the last one that did.",
        "ms",
        1.0,
        60000.0,
    ),
    _setting("max_blind_moving_ms", "The same while the camera moves.", "ms", 1.0, 60000.0),
    _setting(
        "quiet_frames",
        "Frames without anything new that still pass after the last one with something new.",
        "frames",
        0,
        1000,
    ),
    _setting(
        "quiet_ms",
        "Frames pass for at least this long after the last one with something new.",
        "ms",
        0.0,
        60000.0,
    ),
    _setting(
        "settle_ms",
        "What differs and has not moved for this long is part of the scene: the gate closes on it.",
        "ms",
        1.0,
        60000.0,
    ),
    _setting(
        "tracked_interval_ms",
        "While all that is new lies within objects that the detector has just found, frames pass at this "
        "interval; 0 = all pass.",
        "ms",
        0.0,
        60000.0,
    ),
    _setting(
        "appearance_check_ms",
        "While nothing moves, each known object's place is compared at this interval with what the detector "
        "saw there; where it looks otherwise, a frame passes. 0 = never.",
        "ms",
        0.0,
        60000.0,
    ),
    _setting(
        "max_gap_ms",
        "After a pause of the camera of more than this the next frame passes, whatever it shows.",
        "ms",
        1.0,
        600000.0,
    ),
)
_MOTION = (
    _setting(
        "luma_width_px",
        "Width of the small luma image that is compared; smaller is faster and sees less.",
        "px",
        16,
        1920,
    ),
    _setting(
        "pixel_threshold",
        "A pixel has changed when its luma differs by more than this; in noisy pictures by more, see "
        "noise_factor.",
        "grey levels",
        1,
        254,
    ),
    _setting(
        "noise_factor",
        "A pixel's luma must differ by this many standard deviations of the picture's noise at least.",
        "standard deviations",
        0.0,
        100.0,
    ),
    _setting(
        "min_changed_area",
        "Share of the picture that must have changed for a frame to pass as motion.",
        "0..1",
        0.0,
        1.0,
    ),
    _setting("ego_motion", "Take the camera's own motion out before comparing. Off = for a fixed camera."),
    _setting(
        "parallax",
        "Take near things that the camera's travel displaces for known. Off = more frames pass on the move.",
    ),
    _setting(
        "max_new_view",
        "A frame passes when the moving camera shows this share of the picture that was not in view before.",
        "0..1",
        0.0,
        1.0,
    ),
    _setting(
        "min_saving",
        "With a camera that moves: where less than this share of the frames of the last second or so could "
        "be skipped, the gate backs off for 0.4 s at a time: all frames pass without analysis. 0 = never.",
        "0..1",
        0.0,
        1.0,
    ),
    _setting(
        "light_jump",
        "When the whole picture gets brighter or darker by more than this, one frame passes.",
        "grey levels",
        0.1,
        255.0,
    ),
    _setting(
        "saturated_area",
        "When this share of the picture keeps changing, the gate is saturated: frames pass at an interval.",
        "0..1",
        0.0,
        1.0,
    ),
    _setting("saturated_after_ms", "How long it must keep changing for that.", "ms", 0.0, 600000.0),
    _setting(
        "saturated_open_ms",
        "When the gate has been open for this long, it is saturated too, however little changes.",
        "ms",
        0.0,
        600000.0,
    ),
    _setting(
        "saturated_objects",
        "When something moves and so many objects have been in view for saturated_after_ms, it is saturated "
        "too; 0 = never for this.",
        "objects",
        0,
        1000,
    ),
    _setting("saturated_interval_ms", "The interval at which frames pass then.", "ms", 1.0, 60000.0),
    _setting(
        "saturated_look",
        "Look at all frames then: what spreads passes at once. Off = the gate rests, for 0.4 to 4 s at a "
        "time, and costs next to nothing.",
    ),
    _setting(
        "saturated_stretch",
        "So many frames more between two where the detector's last look gave no hint of something that comes "
        "in; needs the detector's publish_low_score.",
        "frames",
        0,
        10,
    ),
    _setting(
        "saturated_min_f1",
        "Frames pass more often than at the interval where the frame F1 of detections and tracks, estimated "
        "from how well tracks foretell what the detector finds, is below this; 0 = never for this.",
        "0..1",
        0.0,
        1.0,
    ),
)
_AUDIT = (
    _setting(
        "audit_rate",
        "Share of the skipped frames, drawn at random, that are inferred anyway; 0 = no audit.",
        "0..1",
        0.0,
        1.0,
    ),
    _setting("audit_max_hz", "Maximum mean rate of audited frames.", "Hz", 0.0, 1000.0),
    _setting(
        "max_miss_rate",
        "The gate passes every frame while the audit shows, with 95 % confidence, that it misses objects on "
        "more than this share of the skipped frames; 1 = never.",
        "0..1",
        0.0,
        1.0,
    ),
)


def _angle(name: str, default: float, axis: str) -> Param:
    description = (
        f"How the camera's optical frame sits on the IMU or robot: its turn about the fixed {axis} axis."
    )
    return Param(name, default, description, "deg", -360.0, 360.0)


EGO = (
    Param(
        "ego_prior",
        "none",
        "Take the camera's rotation from the robot's gyroscope or odometry as a first guess.",
        choices=_PRIORS,
    ),
    Param("ego_focal_px", 0.0, "The camera's focal length; 0 = from camera_info.", "px", 0.0, 100000.0),
    # The defaults: a camera that looks ahead, on a body with x ahead, y left and z up (REP 103).
    _angle("ego_roll_deg", -90.0, "x"),
    _angle("ego_pitch_deg", 0.0, "y"),
    _angle("ego_yaw_deg", -90.0, "z"),
)

GATE = NodeSpec(
    "gate",
    "Lets a frame pass when something new could be seen in it.",
    (*_POLICY, *_MOTION, *_AUDIT, *EGO, *IMAGES, *COMMON),
    (
        Topic("image_raw", "sensor_msgs/msg/Image", "in", "The camera. Best effort, depth 1."),
        compressed("image_raw"),
        Topic(
            "detections",
            "vision_msgs/msg/Detection2DArray",
            "in",
            "What the detector found, for the audit. Only while the detector is in another process.",
        ),
        Topic(
            "detections_low_score",
            "vision_msgs/msg/Detection2DArray",
            "in",
            "What scored less, for saturated_stretch. Only while the detector is in another process.",
        ),
        Topic(
            "vision_info",
            "vision_msgs/msg/VisionInfo",
            "in",
            "Which model runs: after a change a frame passes. Only while the detector is in another process.",
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
        Topic("gate/image", "sensor_msgs/msg/Image", "out", "The frames that passed, as they came."),
        Topic(
            "gate_events",
            "diagnostic_msgs/msg/DiagnosticArray",
            "out",
            "One tick per frame: decision, reason, regions, camera motion.",
        ),
        Topic(
            "~/regions",
            "vision_msgs/msg/BoundingBox2DArray",
            "out",
            "Per judged frame, where something new is; empty = nowhere. Only while somebody subscribes.",
        ),
        STATUS,
    ),
    (ENABLE, RESET),
)
