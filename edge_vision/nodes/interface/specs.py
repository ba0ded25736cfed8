"""Parameters, topics and services of every node: the single source for the nodes, the tables in docs/ and
config/pipeline.yaml. The gate's are in `gate.py`, the cascade's and detector's in `model.py`. Imports no ROS.
"""

from __future__ import annotations

from edge_vision.nodes.interface.collector import COLLECTOR
from edge_vision.nodes.interface.gate import GATE
from edge_vision.nodes.interface.localizer import LOCALIZER
from edge_vision.nodes.interface.model import CASCADE, DETECTOR
from edge_vision.nodes.interface.recorder import RECORDER
from edge_vision.nodes.interface.types import (
    COMMON,
    DIAGNOSTIC_ARRAY,
    IMAGE,
    RESET,
    STATUS,
    NodeSpec,
    Param,
    Range,
    Topic,
    at_configure,
    at_start,
)
from edge_vision.nodes.interface.updater import UPDATER

PARTS = (RECORDER.name, COLLECTOR.name)
"""Nodes that a pipeline may have: they report without being in `watched_nodes`, and need not run."""
DIAGNOSTICS = NodeSpec(
    "diagnostics",
    "Publishes the state of the nodes, their processes and the machine on /diagnostics.",
    (
        at_configure(
            "watched_nodes",
            ["source", "gate", "cascade", "detector"],
            "Subscribes to the `~/status` of these nodes, by name in this namespace.",
        ),
        Param(
            "max_age_ms",
            1000.0,
            "Warns above this age of the detections when published (p95).",
            Range("ms", 1.0, 600000.0),
        ),
        Param("max_rss_mb", 1024.0, "Warns above this memory of a process.", Range("MB", 1.0, 1048576.0)),
        Param(
            "max_fds", 900, "Warns above this number of open files of a process.", Range("files", 1, 10**9)
        ),
        Param(
            "max_cpu_percent",
            97.0,
            "Warns above this CPU load of all cores, mean of 10 s.",
            Range("%", 1.0, 100.0),
        ),
        Param(
            "max_memory_percent",
            92.0,
            "Warns above this share of the machine's memory in use.",
            Range("%", 1.0, 100.0),
        ),
        Param(
            "max_temperature_c",
            90.0,
            "Warns above this temperature of the hottest sensor.",
            Range("C", 1.0, 150.0),
        ),
        Param("max_power_w", 0.0, "Warns above this power; 0 = no limit.", Range("W", 0.0, 100000.0)),
        Param(
            "stale_ms",
            3000.0,
            "Reports a node as STALE after this long without a status.",
            Range("ms", 1100.0, 600000.0),
        ),
        *COMMON,
    ),
    (
        Topic("<node>/status", DIAGNOSTIC_ARRAY, "in", "Of watched and optional nodes."),
        Topic("/diagnostics", DIAGNOSTIC_ARRAY, "out", "REP-107, at 1 Hz."),
        STATUS,
    ),
    (RESET,),
)

SOURCE = NodeSpec(
    "source",
    "Publishes a video, a bag, a V4L2 device or a network stream as a camera, and reconnects after a loss.",
    (
        at_configure(
            "uri",
            "",
            "Opens this video, bag (drive.mcap, or drive.mcap#/cam/image_raw if it has several image "
            "topics), device (/dev/video0, or 0), or rtsp:// or http:// URL; empty = idle. Logs and status "
            "mask its secrets; every node can read it.",
        ),
        Param(
            "playback_rate",
            1.0,
            "Scales the speed of a file: 1 = real time, 0 = as fast as the pipeline in this process accepts "
            "frames.",
            Range("x", 0.01, 1000.0, special=0.0),
        ),
        Param("loop", False, "Restarts a file at its end."),
        at_configure(
            "frame_id",
            "camera",
            "Sets the frame_id of the images, unless `stamps` keeps the recorded headers of a bag.",
        ),
        at_configure(
            "stamps",
            "auto",
            "Stamps images with the node's clock, or with their position in the file from 1 s (media); "
            "auto = the recorded stamps and frame_ids of a bag, otherwise the clock.",
            choices=("auto", "clock", "media"),
        ),
        at_configure(
            "open_timeout_ms", 5000, "Limits the wait for a device or stream.", Range("ms", 100, 600000)
        ),
        *COMMON,
    ),
    (
        Topic("image_raw", IMAGE, "out", "The images. Published only if another process subscribes."),
        Topic(
            "source_events",
            DIAGNOSTIC_ARRAY,
            "out",
            "One frame event per image with its header; small messages.",
        ),
        STATUS,
    ),
    (RESET,),
)

PIPELINE = NodeSpec(
    "pipeline",
    "Settings of the executables, read at start; not a node.",
    (
        at_start(
            "cameras",
            [],
            "Runs all nodes once for each of these cameras, as in [front, rear]: in namespaces of these "
            "names, in one process, with one model in memory. Empty = one camera, without a namespace.",
        ),
        at_start("record", False, "Runs the flight recorder, too."),
        at_start("collect", False, "Runs the collector, too."),
    ),
    (),
)

NODES = (SOURCE, GATE, CASCADE, DETECTOR, DIAGNOSTICS, LOCALIZER, UPDATER, RECORDER, COLLECTOR)
