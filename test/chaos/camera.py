"""A camera driver for the scenarios: `python camera.py camera CLIP WIDTHxHEIGHT ENCODING`, at 10 Hz."""

from __future__ import annotations

import signal
import sys
import time

import cv2
import rclpy
from chaos_run import TEST  # noqa: F401  (the paths of the test helpers)
from rclpy.node import Node
from ros_cases import SENSOR, Image, image_message

CONVERSIONS = {"mono8": cv2.COLOR_BGR2GRAY, "rgb8": cv2.COLOR_BGR2RGB}


def main() -> int:
    name, clip, size, encoding = sys.argv[1:]
    width_px, height_px = map(int, size.split("x"))
    signal.signal(signal.SIGINT, lambda number, frame: sys.exit(0))
    rclpy.init()
    publisher = Node(name).create_publisher(Image, "image_raw", SENSOR)
    capture = cv2.VideoCapture(clip)
    while True:
        read, image = capture.read()
        if not read:
            capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            continue
        image = cv2.resize(image, (width_px, height_px))
        if encoding in CONVERSIONS:
            image = cv2.cvtColor(image, CONVERSIONS[encoding])
        publisher.publish(image_message(image, time.time_ns(), encoding=encoding))
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
