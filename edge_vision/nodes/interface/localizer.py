"""The interface of the localizer node. Imports no ROS."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from edge_vision.nodes.interface.types import (
    COMMON,
    DETECTION_ARRAY,
    IMAGE,
    MAX_IMAGE_MEGAPIXELS,
    RESET,
    STATUS,
    NodeSpec,
    Param,
    Range,
    Topic,
    at_configure,
)

_WAIT = Range("ms", 0.0, 10000.0)


def needs_tf(values: Mapping[str, object]) -> bool:
    """Whether a localizer with these parameters needs transforms."""
    return bool(values["target_frame"]) or values["method"] == "ground"


def _input(name: str, kind: str, text: str, param: str, value: object) -> Topic:
    """A topic that exists while the parameter has this value."""
    return Topic(name, kind, "in", f"{text} With {param}: {value}.".lstrip(), ((param, (value,)),))


_tf = partial(
    Topic,
    type="tf2_msgs/msg/TFMessage",
    direction="in",
    description="With a target_frame or method: ground.",
    package="tf2_msgs",
    only_if=needs_tf,
)

LOCALIZER = NodeSpec(
    "localizer",
    "Places detections or tracks in space, by depth, disparity, or on the ground plane.",
    (
        at_configure(
            "input",
            "detections",
            "Places the boxes of this topic: detections of inferred frames, or tracks on every frame.",
            choices=("detections", "tracks"),
        ),
        at_configure(
            "method",
            "depth",
            "Measures in a depth image that is aligned with the camera's, in a disparity image, or where the "
            "lower edges of the boxes meet the ground.",
            choices=("depth", "disparity", "ground"),
        ),
        at_configure(
            "target_frame",
            "",
            "Publishes in this frame of tf, with z up; empty = the camera's optical frame.",
        ),
        at_configure(
            "ground_frame", "base_footprint", "Takes the plane z = 0 of this frame of tf as the ground."
        ),
        at_configure("rectified", False, "Takes the images as rectified, as method: disparity always does."),
        at_configure("use_masks", False, "Measures in the masks instead of the middle of the boxes."),
        Param(
            "max_stamp_difference_ms", 20.0, "Uses depth images whose stamp differs by this or less.", _WAIT
        ),
        Param(
            "max_wait_ms", 100.0, "Waits this long for depth, masks and tf that come after the boxes.", _WAIT
        ),
        Param("max_range_m", 30.0, "Ignores what is farther away.", Range("m", 0.1, 1000.0)),
        MAX_IMAGE_MEGAPIXELS,
        *COMMON,
    ),
    (
        _input("detections", DETECTION_ARRAY, "", "input", "detections"),
        _input("tracks", DETECTION_ARRAY, "", "input", "tracks"),
        _input("depth", IMAGE, "16UC1 in mm or 32FC1 in m, in the camera's frame_id.", "method", "depth"),
        _input(
            "disparity", "stereo_msgs/msg/DisparityImage", "Of the rectified images.", "method", "disparity"
        ),
        Topic("camera_info", "sensor_msgs/msg/CameraInfo", "in", "Calibration of the detector's camera."),
        _input("masks", IMAGE, "The detector's.", "use_masks", True),
        _tf("/tf"),
        _tf("/tf_static"),
        Topic(
            "detections_3d",
            "vision_msgs/msg/Detection3DArray",
            "out",
            "The objects that have a place, under the image's stamp; empty = no object.",
        ),
        STATUS,
    ),
    (RESET,),
)
