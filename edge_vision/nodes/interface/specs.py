"""Every parameter, topic and service of every node, in one place: the code, the README's tables and the
shipped YAML are made from it (the gate's are in `gate_spec.py`, those that run a model in `model_spec.py`).
Imports no ROS.
"""

from __future__ import annotations

from edge_vision.nodes.interface.gate import GATE
from edge_vision.nodes.interface.model import CASCADE, DETECTOR
from edge_vision.nodes.interface.types import COMMON, RESET, STATUS, NodeSpec, Param, Topic

__all__ = ["CASCADE", "DETECTOR", "DIAGNOSTICS", "GATE", "NODES", "SOURCE", "NodeSpec", "Param", "Topic"]

DIAGNOSTICS = NodeSpec(
    "diagnostics",
    "Gathers what the nodes report, and what processes and machine have to spare, for /diagnostics.",
    (
        Param(
            "watched_nodes",
            ["source", "gate", "cascade", "detector"],
            "Nodes whose `~/status` is gathered, by name, within this namespace.",
            applies="configure",
        ),
        Param("max_age_ms", 1000.0, "Age at output (p95) above which it warns.", "ms", 1.0, 600000.0),
        Param("max_rss_mb", 1024.0, "Memory of a process above which it warns.", "MB", 1.0, 1048576.0),
        Param("max_fds", 900, "Open files of a process above which it warns.", "files", 1, 10**9),
        Param(
            "max_cpu_percent", 97.0, "CPU of all cores, mean of 10 s, above which it warns.", "%", 1.0, 100.0
        ),
        Param(
            "max_memory_percent", 92.0, "Memory of the machine in use above which it warns.", "%", 1.0, 100.0
        ),
        Param("max_temperature_c", 90.0, "Hottest sensor above which it warns.", "C", 1.0, 150.0),
        Param("max_power_w", 0.0, "Power above which it warns; 0 = no limit.", "W", 0.0, 100000.0),
        Param(
            "stale_ms", 3000.0, "A node that reported nothing for this long is STALE.", "ms", 1100.0, 600000.0
        ),
        *COMMON,
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
            "A file, a device (/dev/video0, or 0), an rtsp:// or http:// URL; empty = idle. Logs and status "
            "mask user info and query values; whoever may read parameters can read them.",
            applies="configure",
        ),
        Param(
            "playback_rate",
            1.0,
            "Speed of a file: 1 = real time, 0 = as fast as the pipeline in this process takes frames.",
            "x",
            0.01,
            1000.0,
            special=0.0,
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
        *COMMON,
    ),
    (
        Topic(
            "image_raw",
            "sensor_msgs/msg/Image",
            "out",
            "The images. Published only if somebody outside subscribes.",
        ),
        Topic(
            "source_events",
            "diagnostic_msgs/msg/DiagnosticArray",
            "out",
            "One tick per image: its header. Costs little to subscribe to.",
        ),
        STATUS,
    ),
    (RESET,),
)

NODES = (SOURCE, GATE, CASCADE, DETECTOR, DIAGNOSTICS)
