#!/usr/bin/env python3
"""Prints what the pipeline finds. Start it beside a running pipeline, in the same namespace."""

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from vision_msgs.msg import Detection2DArray, LabelInfo

names: dict[str, str] = {}


def on_labels(message: LabelInfo) -> None:
    names.update({str(one.class_id): one.class_name for one in message.class_map})


def on_detections(message: Detection2DArray) -> None:
    for one in message.detections:  # No entry: the detector looked, and there is nothing.
        best, center = one.results[0].hypothesis, one.bbox.center.position
        print(
            f"{names.get(best.class_id, best.class_id)} {best.score:.2f} at x={center.x:.0f} y={center.y:.0f}"
        )


rclpy.init()
node = rclpy.create_node("subscriber")
# label_info is sent once, and kept for whoever comes later: that is "transient local".
latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
node.create_subscription(LabelInfo, "label_info", on_labels, latched)
node.create_subscription(Detection2DArray, "detections", on_detections, 5)
try:
    rclpy.spin(node)
except (KeyboardInterrupt, ExternalShutdownException):
    rclpy.try_shutdown()
