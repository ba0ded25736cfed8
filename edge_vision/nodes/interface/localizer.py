"""The interface of the localizer node. Imports no ROS."""

from __future__ import annotations

from collections.abc import Mapping

from edge_vision.nodes.interface.types import (
    COMMON,
    MAX_IMAGE_MEGAPIXELS,
    RESET,
    STATUS,
    NodeSpec,
    Param,
    Range,
    Topic,
)

_DETECTIONS = "vision_msgs/msg/Detection2DArray"


def needs_tf(values: Mapping[str, object]) -> bool:
    """Whether a localizer with these parameters needs transforms."""
    return bool(values["target_frame"]) or values["method"] == "ground"


def _tf(name: str) -> Topic:
    text = "With a target_frame or method: ground."
    return Topic(name, "tf2_msgs/msg/TFMessage", "in", text, package="tf2_msgs", only_if=needs_tf)


LOCALIZER = NodeSpec(
    "localizer",
    "Places detections or tracks in space, by depth, disparity, or on the ground plane.",
    (
        Param(
            "input",
            "detections",
            "Places the boxes of this topic: detections of inferred frames, or tracks on every frame.",
            choices=("detections", "tracks"),
            applies="configure",
        ),
        Param(
            "method",
            "depth",
            "Measures distances in a depth image that is aligned with the camera's, in a disparity image, or "
            "where the lower edges of the boxes meet the ground.",
            choices=("depth", "disparity", "ground"),
            applies="configure",
        ),
        Param(
            "target_frame",
            "",
            "Publishes in this frame of tf, with z up, at the image's stamp; empty = the camera's optical "
            "frame.",
            applies="configure",
        ),
        Param(
            "ground_frame",
            "base_footprint",
            "Takes the plane z = 0 of this frame of tf as the ground, for method: ground.",
            applies="configure",
        ),
        Param(
            "rectified",
            False,
            "Takes the images as rectified: P of camera_info and no distortion. Always so with method: "
            "disparity.",
            applies="configure",
        ),
        Param(
            "use_masks",
            False,
            "Measures in the objects' masks instead of the middle of their boxes.",
            applies="configure",
        ),
        Param(
            "max_stamp_difference_ms",
            20.0,
            "Uses a depth image whose stamp differs by at most this; 0 = equal stamps.",
            Range("ms", 0.0, 10000.0),
        ),
        Param(
            "max_wait_ms",
            100.0,
            "Waits this long for depth, masks and tf that arrive after the boxes.",
            Range("ms", 0.0, 10000.0),
        ),
        Param("max_range_m", 30.0, "Ignores what is farther away.", Range("m", 0.1, 1000.0)),
        MAX_IMAGE_MEGAPIXELS,
        *COMMON,
    ),
    (
        Topic("detections", _DETECTIONS, "in", "With input: detections.", (("input", ("detections",)),)),
        Topic("tracks", _DETECTIONS, "in", "With input: tracks.", (("input", ("tracks",)),)),
        Topic(
            "depth",
            "sensor_msgs/msg/Image",
            "in",
            "16UC1 in mm or 32FC1 in m, in the camera's frame_id. With method: depth. Best effort.",
            (("method", ("depth",)),),
        ),
        Topic(
            "disparity",
            "stereo_msgs/msg/DisparityImage",
            "in",
            "Of the camera's rectified image. With method: disparity. Best effort.",
            (("method", ("disparity",)),),
        ),
        Topic("camera_info", "sensor_msgs/msg/CameraInfo", "in", "Calibration of the detector's camera."),
        Topic(
            "masks",
            "sensor_msgs/msg/Image",
            "in",
            "mono16: the number of the detection that a pixel belongs to, from 1; 0 = none. With use_masks.",
            (("use_masks", (True,)),),
        ),
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
