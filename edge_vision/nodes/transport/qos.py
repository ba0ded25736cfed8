"""Quality of service of the topics."""

from __future__ import annotations

from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy

LATEST_IMAGE = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
VIEWED_IMAGE = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.RELIABLE)
"""REP-2003: reliable, so that viewers with any request receive it."""
RESULTS = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.RELIABLE)
FRAME_EVENTS = QoSProfile(depth=200, reliability=QoSReliabilityPolicy.RELIABLE)
STATUS = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1, reliability=QoSReliabilityPolicy.RELIABLE, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL
)
