"""The gate's prior of its camera's motion, from IMU or odometry and the camera's calibration.

Images and samples must be stamped by the same clock: samples are matched to frames by their stamps.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Imu

from edge_vision.core.frame import Frame
from edge_vision.core.stamp_check import stamp_to_ns
from edge_vision.errors import ImageError
from edge_vision.gate.ego_prior import (
    IMU_GAP_NS,
    ODOMETRY_GAP_NS,
    EgoPrior,
    OrientationHistory,
    mounting_rotation,
)
from edge_vision.nodes.base_node import BaseNode
from edge_vision.nodes.interface.calibration import calibration_of
from edge_vision.nodes.interface.gate import EGO

# Deep, because samples accumulate while an image is received.
SAMPLES = QoSProfile(depth=100, reliability=QoSReliabilityPolicy.BEST_EFFORT)
SETTINGS = frozenset(param.name for param in EGO)
TIMEOUT_S = 3.0


class EgoListener:
    """Subscribes as the node's parameters `ego_*` request. `motion` is called by one other thread."""

    def __init__(self, node: BaseNode) -> None:
        self._node = node
        self._subscriptions: list[Any] = []
        self._prior: EgoPrior | None = None
        self._accepted = self._rejected = self._given = 0
        self._no_rate = False
        self._last_good_s = self._last_asked_s = time.monotonic()

    def start(self) -> None:
        """Subscribe as the parameters request, with an empty history."""
        self.stop()
        params = self._node.params
        kind = params["ego_prior"]
        if kind == "none":
            return
        history = OrientationHistory(IMU_GAP_NS if kind == "imu" else ODOMETRY_GAP_NS)
        mounting = mounting_rotation(*(params[f"ego_{angle}_deg"] for angle in ("roll", "pitch", "yaw")))
        self._prior = EgoPrior(history, mounting, params["ego_focal_px"])
        self._last_good_s = self._last_asked_s = time.monotonic()
        subscribe = self._node.create_subscription
        if kind == "imu":
            self._subscriptions = [subscribe(Imu, "imu", self._on_imu, SAMPLES)]
        else:
            self._subscriptions = [subscribe(Odometry, "odom", self._on_odometry, SAMPLES)]
        if params["ego_focal_px"] == 0:
            self._subscriptions.append(subscribe(CameraInfo, "camera_info", self._on_camera_info, SAMPLES))

    def stop(self) -> None:
        self._prior = None
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            self._node.destroy_subscription(subscription)

    def motion(self, from_ns: int | None, frame: Frame) -> np.ndarray | None:
        """The camera's motion since a stamp, (3, 3) in source pixels; None if unknown."""
        prior = self._prior
        if prior is None or from_ns is None:
            return None
        self._last_asked_s = time.monotonic()
        motion = prior.motion(from_ns, frame.stamp_ns, frame.width_px, frame.height_px)
        if motion is not None:
            self._given += 1
            self._last_good_s = self._last_asked_s
        return motion

    # Callbacks.
    def _on_imu(self, message: Imu) -> None:
        # As sensor_msgs/Imu defines for a sensor without gyroscope.
        self._no_rate = bool(message.angular_velocity_covariance[0] == -1.0)
        rate = message.angular_velocity
        self._add("add_rate", message.header.stamp, () if self._no_rate else (rate.x, rate.y, rate.z))

    def _on_odometry(self, message: Odometry) -> None:
        q = message.pose.pose.orientation
        self._add("add_orientation", message.header.stamp, (q.x, q.y, q.z, q.w))

    def _add(self, method: str, stamp: Any, values: tuple[float, ...]) -> None:
        prior = self._prior
        if prior is None:
            return
        try:
            accepted = getattr(prior.history, method)(stamp_to_ns(stamp), values)
        except ImageError:  # An invalid stamp.
            accepted = False
        self._accepted += accepted
        self._rejected += not accepted

    def _on_camera_info(self, message: CameraInfo) -> None:
        prior, found = self._prior, calibration_of(message)
        if prior is not None and found is not None:
            prior.calibrate(*found)

    # Reports.
    def trouble(self) -> str:
        """Why frames get no prior although one is requested; "" if they do."""
        prior = self._prior
        silent_s = self._last_asked_s - self._last_good_s
        if prior is None or silent_s < TIMEOUT_S:
            return ""
        topic = self._subscriptions[0].topic_name
        publishers = self._node.count_publishers(topic)
        why = "the IMU reports that it has no gyroscope" if self._no_rate else prior.missing
        return (
            f"no ego prior for {silent_s:.0f} s: {why} ({topic}: {publishers} publishers, {self._accepted} "
            f"samples accepted, {self._rejected} rejected). The gate continues without it"
        )

    def status_values(self) -> dict[str, Any]:
        """Status values; empty if no prior is requested."""
        prior = self._prior
        if prior is None:
            return {}
        return {
            "ego_prior.frames": self._given,
            "ego_prior.missing": prior.missing,
            "ego_prior.samples": self._accepted,
            "ego_prior.rejected": self._rejected,
        }
