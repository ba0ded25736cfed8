"""The interface of the updater node. Imports no ROS."""

from __future__ import annotations

from edge_vision.nodes.interface.types import COMMON, RESET, STATUS, NodeSpec, Param, Range, Topic

SHADOW = (("auto", ("shadow", "promote")),)
UPDATER = NodeSpec(
    "updater",
    "Brings signed model updates to the detector.",
    (
        Param(
            "repository_url",
            "",
            "Checks this TUF repository, an http, https or file URL; empty = no network.",
            applies="configure",
        ),
        Param("group", "", "Selects the group of robots, as in fleet/a.", applies="configure"),
        Param("channel", "stable", "Selects the channel of the group.", applies="configure"),
        Param(
            "bootstrap_root",
            "",
            "Trusts this first root file, 1.root.json.",
            applies="configure",
        ),
        Param(
            "check_interval_s",
            3600.0,
            "Checks the repository this often.",
            Range("s", 10.0, 2592000.0),
        ),
        Param(
            "auto",
            "download",
            "Selects how far an update goes without a request.",
            choices=("off", "download", "shadow", "promote"),
        ),
        Param(
            "robot_id",
            "",
            "Names this robot in reports, and decides its stage; empty = made from /etc/machine-id.",
            applies="configure",
        ),
        Param(
            "report_to",
            "",
            "Reports updates to this folder, or by HTTP PUT below this http or https URL; empty = nowhere.",
            applies="configure",
        ),
        *COMMON,
    ),
    (
        Topic(
            "detector/status", "diagnostic_msgs/msg/DiagnosticArray", "in", "Failed frames, age, detections."
        ),
        Topic("gate/status", "diagnostic_msgs/msg/DiagnosticArray", "in", "The audit."),
        Topic("image_accepted", "sensor_msgs/msg/Image", "in", "While a model is compared.", SHADOW),
        Topic(
            "image_accepted/compressed",
            "sensor_msgs/msg/CompressedImage",
            "in",
            "While a model is compared.",
            SHADOW,
        ),
        Topic("detections", "vision_msgs/msg/Detection2DArray", "in", "While a model is compared.", SHADOW),
        Topic("label_info", "vision_msgs/msg/LabelInfo", "in", "While a model is compared.", SHADOW),
        Topic(
            "~/disagreements",
            "sensor_msgs/msg/CompressedImage",
            "out",
            "Frames on which the compared model disagrees.",
            SHADOW,
        ),
        STATUS,
    ),
    (
        RESET,
        ("~/check", "std_srvs/srv/Trigger", "Checks the repository now, and downloads a new release."),
        ("~/promote", "std_srvs/srv/Trigger", "Lets the downloaded model serve, on probation."),
        ("~/rollback", "std_srvs/srv/Trigger", "Returns to the model before, and bars the present one."),
    ),
)
