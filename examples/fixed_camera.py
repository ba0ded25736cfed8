#!/usr/bin/env python3
"""Publishes camera_info and /tf of a camera at a known height, for `method: ground` of the localizer, where
no driver and no robot model does.

python examples/fixed_camera.py --width 768 --height 576 --above-ground-m 5 --tilt-deg 15
"""

import argparse
import math
from contextlib import suppress

import rclpy
from geometry_msgs.msg import TransformStamped
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo
from tf2_msgs.msg import TFMessage

parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
parser.add_argument("--frame-id", default="camera", help="that of the images")
parser.add_argument("--width", type=int, default=640)
parser.add_argument("--height", type=int, default=480)
parser.add_argument("--field-of-view-deg", type=float, default=60.0, help="horizontal")
parser.add_argument("--above-ground-m", type=float, default=1.0)
parser.add_argument("--tilt-deg", type=float, default=0.0, help="how far it looks down")
options = parser.parse_args(remove_ros_args()[1:])

focal_px = options.width / 2 / math.tan(math.radians(options.field_of_view_deg) / 2)
info = CameraInfo(width=options.width, height=options.height, distortion_model="plumb_bob", d=[0.0] * 5)
info.header.frame_id = options.frame_id
info.k = [focal_px, 0.0, (options.width - 1) / 2, 0.0, focal_px, (options.height - 1) / 2, 0.0, 0.0, 1.0]

pose = TransformStamped(child_frame_id=options.frame_id)
pose.header.frame_id = "base_footprint"
pose.transform.translation.z = options.above_ground_m
# From the optical frame (z forward, y down) to the body's (x forward, z up), turned down by the tilt.
half = math.radians(options.tilt_deg) / 2
down, level = (math.cos(half) + math.sin(half)) / 2, (math.cos(half) - math.sin(half)) / 2
turn = pose.transform.rotation
turn.x, turn.y, turn.z, turn.w = -down, down, -level, level

rclpy.init()
node = rclpy.create_node("fixed_camera")
latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
transforms = node.create_publisher(TFMessage, "/tf_static", latched)
transforms.publish(TFMessage(transforms=[pose]))
infos = node.create_publisher(CameraInfo, "camera_info", 1)
node.create_timer(1.0, lambda: infos.publish(info))
with suppress(KeyboardInterrupt, ExternalShutdownException):
    above_m = options.above_ground_m
    print(f"{options.frame_id}: focal length {focal_px:.0f} px, {above_m:.2f} m above the ground", flush=True)
    rclpy.spin(node)
