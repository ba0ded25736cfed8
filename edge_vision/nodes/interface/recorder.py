"""The interface of the recorder node. Imports no ROS."""

from __future__ import annotations

from edge_vision.nodes.interface.types import (
    COMMON,
    DETECTION_ARRAY,
    DIAGNOSTIC_ARRAY,
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
    compressed,
)

_TIME = Range("s", 0.0, 600.0)
STATUS_NODES = ("source", "gate", "cascade", "detector")

RECORDER = NodeSpec(
    "recorder",
    "Keeps the last seconds in memory, and writes them to a file when something happens.",
    (
        at_configure(
            "folder",
            "",
            "Writes recordings into this folder; empty = recordings/CAMERA in $EDGE_VISION_CACHE, or in "
            "~/.cache/edge_vision.",
        ),
        Param(
            "rules",
            [],
            "Starts a recording when one of these becomes true: audit_miss, fallback, cause, cause:NAME, "
            "temperature, temperature:DEGREES, class:NAME, class:NAME in zone, class:NAME in zone ZONE.",
        ),
        Param("before_s", 10.0, "Records this much from before the trigger.", _TIME),
        Param("after_s", 5.0, "Records on for this long; each further trigger prolongs it.", _TIME),
        Param(
            "max_recording_s", 60.0, "Ends a recording this long after its trigger.", Range("s", 1.0, 3600.0)
        ),
        Param("rule_interval_s", 30.0, "Ignores the rules for this long after a recording.", _TIME),
        Param("image_hz", 5.0, "Keeps this many images per second; 0 = all.", Range("Hz", 0.0, 1000.0)),
        Param("ring_mb", 32.0, "Uses at most this much memory.", Range("MB", 1.0, 4096.0)),
        Param(
            "max_total_mb",
            2000.0,
            "Deletes the oldest recordings beyond this size of all.",
            Range("MB", 1.0, 1000000.0),
        ),
        Param(
            "max_age_days",
            30.0,
            "Deletes recordings after this time; 0 = never.",
            Range("days", 0.0, 3650.0),
        ),
        *IMAGES,
        *COMMON,
    ),
    (
        Topic("image_raw", IMAGE, "in", "Recorded as JPEG."),
        compressed("image_raw"),
        Topic("gate_events", DIAGNOSTIC_ARRAY, "in", "Recorded."),
        Topic("cascade_events", DIAGNOSTIC_ARRAY, "in", "Recorded."),
        Topic("detections", DETECTION_ARRAY, "in", "Recorded."),
        Topic("tracks", DETECTION_ARRAY, "in", "Recorded, also for Foxglove."),
        Topic("label_info", LABEL_INFO, "in", "Recorded."),
        Topic("vision_info", VISION_INFO, "in", "Recorded."),
        Topic("zones", STRING, "in", "Recorded."),
        Topic("<node>/status", DIAGNOSTIC_ARRAY, "in", "Recorded."),
        Topic("/diagnostics", DIAGNOSTIC_ARRAY, "in", "Recorded."),
        STATUS,
    ),
    (RESET, ("~/snapshot", "std_srvs/srv/Trigger", "Starts a recording, or prolongs the present one.")),
)
