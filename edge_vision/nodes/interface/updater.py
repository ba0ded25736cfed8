"""The interface of the updater node. Imports no ROS."""

from __future__ import annotations

from edge_vision.nodes.interface.types import (
    COMMON,
    COMPRESSED_IMAGE,
    DETECTION_ARRAY,
    DIAGNOSTIC_ARRAY,
    IMAGE,
    LABEL_INFO,
    RESET,
    STATUS,
    NodeSpec,
    Param,
    Range,
    Topic,
    at_configure,
)

SHADOW = (("auto", ("shadow", "promote")),)
UPDATER = NodeSpec(
    "updater",
    "Brings signed model updates to the detector.",
    (
        at_configure(
            "repository_url",
            "",
            "Checks this TUF repository, an http, https or file URL; empty = no network.",
        ),
        at_configure("group", "", "Selects the group of robots, as in fleet/a."),
        at_configure("channel", "stable", "Selects the channel of the group."),
        at_configure("bootstrap_root", "", "Trusts this first root file, 1.root.json."),
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
        at_configure(
            "robot_id",
            "",
            "Names this robot in reports, and decides its stage; empty = made from /etc/machine-id.",
        ),
        at_configure(
            "report_to",
            "",
            "Reports updates to this folder, or by HTTP PUT below this http or https URL; empty = nowhere.",
        ),
        *COMMON,
    ),
    (
        Topic("detector/status", DIAGNOSTIC_ARRAY, "in", "Failed frames, age, detections."),
        Topic("gate/status", DIAGNOSTIC_ARRAY, "in", "The audit."),
        Topic("image_accepted", IMAGE, "in", "While a model is compared.", SHADOW),
        Topic("image_accepted/compressed", COMPRESSED_IMAGE, "in", "While a model is compared.", SHADOW),
        Topic("detections", DETECTION_ARRAY, "in", "While a model is compared.", SHADOW),
        Topic("label_info", LABEL_INFO, "in", "While a model is compared.", SHADOW),
        Topic(
            "~/disagreements",
            COMPRESSED_IMAGE,
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
