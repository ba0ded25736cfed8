"""Starts the pipeline: `ros2 launch edge_vision pipeline.launch.py --show-args` lists the arguments.

All nodes run in one process (composition:=true) that passes images by reference, or in one process each; with
cameras:=front,rear once per camera. They read the same parameter file, and configure and activate themselves.
"""

from __future__ import annotations

from launch import LaunchDescription, Substitution
from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import (
    AndSubstitution,
    EnvironmentVariable,
    EqualsSubstitution,
    LaunchConfiguration,
    NotEqualsSubstitution,
    NotSubstitution,
    PathJoinSubstitution,
)
from launch_ros.actions import Node, SetParameter
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

CONFIG = PathJoinSubstitution([FindPackageShare("edge_vision"), "config"])
BOOL = ["true", "false", "True", "False"]
LEVELS = ["debug", "info", "warn", "error", "fatal"]
# name, default, choices, description
ARGUMENTS = (
    (
        "cameras",
        "",
        None,
        "Names of cameras, as in front,rear: all nodes once per camera in a namespace of this name, with one "
        "model in memory; empty = one camera, or as in params_file.",
    ),
    (
        "source",
        "",
        None,
        "Video, bag, /dev/video0, rtsp:// or http:// URL, in which {camera} is the camera's name; empty = "
        "subscribe to image_topic.",
    ),
    (
        "image_topic",
        "image_raw",
        None,
        "Camera topic; <image_topic>/compressed with image_transport: compressed.",
    ),
    (
        "camera_info_topic",
        "camera_info",
        None,
        "Calibration of the camera, for an ego_prior in params_file and for the localizer.",
    ),
    ("imu_topic", "imu", None, "Gyroscope, for ego_prior: imu in params_file."),
    ("odometry_topic", "odom", None, "Odometry, for ego_prior: odometry in params_file."),
    ("model", "", None, "Detector bundle, a name or a folder; empty = as in params_file."),
    ("backend", "", None, "auto, onnxruntime, openvino, litert, ...; empty = as in params_file."),
    (
        "preset",
        "",
        ["", "recall", "balanced", "economy"],
        "What the gate promises: recall, balanced or economy; empty = as in params_file.",
    ),
    (
        "localizer",
        "false",
        BOOL,
        "Place the detections in space: starts localizer_node, in a process of its own.",
    ),
    ("depth_topic", "depth", None, "Depth image aligned with the camera's, for the localizer."),
    ("disparity_topic", "disparity", None, "Disparity image, for the localizer with method: disparity."),
    (
        "updater",
        "false",
        BOOL,
        "Bring signed model updates: starts updater_node, in a process of its own, with the repository of "
        "params_file.",
    ),
    (
        "record",
        "",
        ["", "true", "false"],
        "Run the flight recorder, in the pipeline's process, or with composition:=false in one of its own; "
        "empty = as in params_file.",
    ),
    (
        "collect",
        "",
        ["", "true", "false"],
        "Keep frames that are worth a label, with composition:=true; empty = as in params_file.",
    ),
    (
        "metrics_port",
        "0",
        None,
        "Serve metrics to Prometheus on this port of 127.0.0.1, in a process of its own; 0 = off.",
    ),
    (
        "web_port",
        "0",
        None,
        "Serve the live page on this port of 127.0.0.1, in a process of its own; 0 = off.",
    ),
    (
        "params_file",
        PathJoinSubstitution([CONFIG, "pipeline.yaml"]),
        None,
        "YAML file with the nodes' parameters.",
    ),
    ("namespace", "", None, "Namespace of all nodes and topics, as in front_camera."),
    (
        "composition",
        "true",
        BOOL,
        "One process for all nodes, in which images are passed by reference; false = one process each, which "
        "exchange images through DDS.",
    ),
    (
        "use_respawn",
        "true",
        BOOL,
        "With composition:=false, start a process again 2 s after it has ended; the node rejoins the others.",
    ),
    (
        "use_sim_time",
        "",
        ["", *BOOL],
        "Use the time on /clock, as of a simulator or `ros2 bag play --clock`; empty = as in params_file.",
    ),
    (
        "autostart",
        "true",
        BOOL,
        "Configure and activate the nodes; false = use `ros2 lifecycle set`.",
    ),
    ("log_level", "info", [*LEVELS, *map(str.upper, LEVELS)], "Lowest severity that is logged."),
)
# Without a profile Fast DDS loses most images that we send to other processes, ~/debug_image included.
# Jazzy's Fast DDS reads the first variable, newer ones the second. Values set by the user are kept.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    source, composition = LaunchConfiguration("source"), LaunchConfiguration("composition")
    separate = NotSubstitution(composition)
    with_source = AndSubstitution(separate, NotEqualsSubstitution(source, ""))
    without_source = AndSubstitution(separate, EqualsSubstitution(source, ""))
    from_source, with_model = ["--source=", source], _options("model", "backend")
    preset = _options("preset")
    servers = {name: LaunchConfiguration(f"{name}_port") for name in ("metrics", "web")}
    record, collect = LaunchConfiguration("record"), LaunchConfiguration("collect")
    cameras = ["--cameras=", LaunchConfiguration("cameras")]
    with_recorder = AndSubstitution(separate, EqualsSubstitution(record, "true"))
    sim_time = LaunchConfiguration("use_sim_time")
    # Without a source in this launch, its missing reports are no fault.
    watched = {"watched_nodes": ["gate", "cascade", "detector"]}
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(n, default_value=d, choices=c, description=t)
                for n, d, c, t in ARGUMENTS
            ),
            SetParameter(
                "use_sim_time", sim_time, condition=IfCondition(NotEqualsSubstitution(sim_time, ""))
            ),
            SetParameter("record", record, condition=IfCondition(NotEqualsSubstitution(record, ""))),
            SetParameter("collect", collect, condition=IfCondition(NotEqualsSubstitution(collect, ""))),
            _node("pipeline", composition, arguments=[cameras, from_source, *with_model, *preset]),
            _process("recorder_node", with_recorder, arguments=[cameras]),
            _process("detector_node", separate, arguments=[cameras, *with_model]),
            _process("cascade_node", separate, arguments=[cameras]),
            _process("gate_node", separate, arguments=[cameras, *preset]),
            _process("diagnostics_node", with_source, arguments=[cameras]),
            _process("diagnostics_node", without_source, arguments=[cameras], overrides=watched),
            _process("localizer_node", LaunchConfiguration("localizer"), arguments=[cameras]),
            _process("updater_node", LaunchConfiguration("updater"), arguments=[cameras]),
            # A port that is taken ends this process only. It tries again.
            *(
                _node(
                    name,
                    NotEqualsSubstitution(port, "0"),
                    arguments=["--port", port],
                    respawn=LaunchConfiguration("use_respawn"),
                    respawn_delay=30.0,
                )
                for name, port in servers.items()
            ),
            _process("source_node", with_source, arguments=[cameras, from_source]),
        ]
    )


def _options(*names: str) -> list[list[object]]:
    """Command line options of the executables, which ignore empty values."""
    return [[f"--{name}=", LaunchConfiguration(name)] for name in names]


def _process(*args: object, **kwargs: object) -> Node:
    """A node in a process of its own, which is started again if it ends."""
    return _node(*args, respawn=LaunchConfiguration("use_respawn"), respawn_delay=2.0, **kwargs)


def _node(executable: str, condition: Substitution, overrides: dict | None = None, **kwargs: object) -> Node:
    """A process, if the condition is true. Without a name, which would apply to every node of the process."""
    image_topic = LaunchConfiguration("image_topic")
    sensors = {"camera_info": "camera_info_topic", "imu": "imu_topic", "odom": "odometry_topic"}
    sensors |= {"depth": "depth_topic", "disparity": "disparity_topic"}
    log_level = LaunchConfiguration("log_level")
    profile = PathJoinSubstitution([CONFIG, "fastdds.xml"])
    autostart = ParameterValue(LaunchConfiguration("autostart"), value_type=bool)
    return Node(
        package="edge_vision",
        executable=executable,
        namespace=LaunchConfiguration("namespace"),
        parameters=[{"autostart": autostart, **(overrides or {})}],
        remappings=[
            ("image_raw", image_topic),
            *((name, LaunchConfiguration(argument)) for name, argument in sensors.items()),
        ],
        # In `parameters`, a missing file would only be a warning, and the defaults would be used.
        ros_arguments=["--params-file", LaunchConfiguration("params_file"), "--log-level", log_level],
        additional_env={name: EnvironmentVariable(name, default_value=profile) for name in PROFILE_VARIABLES},
        output="screen",
        condition=IfCondition(condition),
        **kwargs,
    )
