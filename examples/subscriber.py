#!/usr/bin/env python3
"""Prints the objects on every frame of a pipeline. In its namespace: --ros-args -r __ns:=/front."""

import argparse
from contextlib import suppress

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from rclpy.utilities import remove_ros_args
from vision_msgs.msg import Detection2DArray, LabelInfo

labels: dict[str, str] = {}


def on_labels(message: LabelInfo) -> None:
    labels.update({str(entry.class_id): entry.class_name for entry in message.class_map})


def on_tracks(message: Detection2DArray) -> None:
    for detection in message.detections:  # Inferred if `detections` has the same stamp, otherwise predicted.
        best, center = detection.results[0].hypothesis, detection.bbox.center.position
        label = labels.get(best.class_id, best.class_id)
        print(f"{label} #{detection.id} {best.score:.2f} at x={center.x:.0f} y={center.y:.0f}")


argparse.ArgumentParser(description=__doc__).parse_args(remove_ros_args()[1:])
rclpy.init()
node = rclpy.create_node("subscriber")
# label_info is published once and latched: late subscribers receive it with "transient local".
latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
node.create_subscription(LabelInfo, "label_info", on_labels, latched)
node.create_subscription(Detection2DArray, "tracks", on_tracks, 5)
with suppress(KeyboardInterrupt, ExternalShutdownException):
    rclpy.spin(node)
