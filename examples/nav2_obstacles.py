#!/usr/bin/env python3
"""Feeds a nav2 costmap with the localizer's objects: `obstacles` marks them, `free_space` clears the rest.

The parameters of nav2 are in docs/localizer.md. The localizer needs a target_frame with z up.
"""

import argparse
import math
from array import array
from contextlib import suppress

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header
from vision_msgs.msg import BoundingBox3D, Detection3DArray

SPACING_M = 0.1  # At most the costmap's resolution times two.
CLEARED_M = 8.0  # As raytrace_max_range.
FIELD_OF_VIEW = math.radians(60)  # Of the camera, which looks along x of the target_frame.
FIELDS = [
    PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, name in enumerate("xyz")
]


def cloud(header: Header, points: np.ndarray) -> PointCloud2:
    data = array("B", points.astype(np.float32).tobytes())
    return PointCloud2(
        header=header,
        height=1,
        width=len(points),
        fields=FIELDS,
        point_step=12,
        row_step=len(data),
        data=data,
        is_dense=True,
    )


def footprint(box: BoundingBox3D) -> np.ndarray:
    """Points of the box's base area, (n, 3), in the frame of the header."""
    q, center, size = box.center.orientation, box.center.position, box.size
    yaw = math.atan2(2 * (q.w * q.z + q.x * q.y), 1 - 2 * (q.y * q.y + q.z * q.z))
    along, across = (
        np.linspace(-length / 2, length / 2, math.ceil(length / SPACING_M) + 1) for length in (size.x, size.y)
    )
    x, y = (part.ravel() for part in np.meshgrid(along, across))
    turned = x * math.cos(yaw) - y * math.sin(yaw), x * math.sin(yaw) + y * math.cos(yaw)
    return np.column_stack((center.x + turned[0], center.y + turned[1], np.full(len(x), center.z)))


def on_objects(message: Detection3DArray) -> None:
    angles = np.arange(-FIELD_OF_VIEW / 2, FIELD_OF_VIEW / 2, SPACING_M / CLEARED_M)
    arc = CLEARED_M * np.column_stack((np.cos(angles), np.sin(angles), np.full(len(angles), 0.05)))
    free_space.publish(cloud(message.header, arc))
    points = [footprint(one.bbox) for one in message.detections]
    obstacles.publish(cloud(message.header, np.concatenate([np.zeros((0, 3)), *points])))
    for one in message.detections:
        at = one.bbox.center.position
        print(f"class {one.results[0].hypothesis.class_id} at x={at.x:.2f} y={at.y:.2f} m", flush=True)


argparse.ArgumentParser(description=__doc__).parse_args(remove_ros_args()[1:])
rclpy.init()
node = rclpy.create_node("nav2_obstacles")
obstacles = node.create_publisher(PointCloud2, "obstacles", 5)
free_space = node.create_publisher(PointCloud2, "free_space", 5)
node.create_subscription(Detection3DArray, "detections_3d", on_objects, 5)
with suppress(KeyboardInterrupt, ExternalShutdownException):
    rclpy.spin(node)
