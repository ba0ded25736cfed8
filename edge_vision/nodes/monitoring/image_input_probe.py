"""Reads from the ROS graph who publishes the images that a node subscribes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rclpy.exceptions import NameValidationException
from rclpy.node import Node
from rclpy.validate_full_topic_name import validate_full_topic_name
from sensor_msgs.msg import CameraInfo

from edge_vision.core.running_clock import running_s
from edge_vision.diagnostics.snapshot import Endpoint, ImageInput, NodeReport
from edge_vision.nodes.transport.qos import LATEST_IMAGE

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
FLOW = ("source", "gate", "cascade", "detector")
"""The nodes of the pipeline in the order of the flow."""
CAMERA_INFO_AFTER_MS = 800.0
"""Time without images after which camera_info is subscribed to."""


class ImageInputProbe:
    """Adds the image input to the reports of one pipeline's nodes."""

    def __init__(self, node: Node, namespace: str) -> None:
        self._node, self._namespace = node, namespace
        self._published_s: dict[str, float] = {}
        self._camera_info: tuple[str, Any] | None = None
        self._camera_info_count = 0

    def with_image_input(self, report: NodeReport) -> NodeReport:
        """The report of an active node with its image input, once its subscription is discovered."""
        topic = report.values.get("image_topic", "")
        if not is_topic_name(topic) or report.values.get("state") != "active":
            return report
        own = [
            endpoint(info)
            for info in self._node.get_subscriptions_info_by_topic(topic)
            if (info.node_name, info.node_namespace) == (report.name, self._namespace)
        ]
        if not own:
            return report
        publishers = tuple(endpoint(info) for info in self._node.get_publishers_info_by_topic(topic))
        others = () if publishers else self._other_images()
        count = self._count_camera_info(topic, report) if publishers and report.flag("first_stage") else None
        images = ImageInput(topic, own[0], publishers, others, count, self._published_ms(topic, publishers))
        return replace(report, image_input=images)

    def close(self) -> None:
        """Unsubscribe, and forget the publishers."""
        self._unsubscribe()
        self._published_s.clear()

    def _published_ms(self, topic: str, publishers: Sequence[Endpoint]) -> float:
        """How long the topic has had a publisher."""
        now_s = running_s()
        if not publishers:
            self._published_s.pop(topic, None)
            return 0.0
        return (now_s - self._published_s.setdefault(topic, now_s)) * 1e3

    def _other_images(self) -> tuple[str, ...]:
        """Image topics that other nodes than those of pipelines publish, and no pipeline subscribes to."""
        own = [one for one in self._node.get_node_names_and_namespaces() if one[0] in FLOW]
        topics = foreign_image_topics(self._node, own)
        readers = self._node.get_subscriptions_info_by_topic
        return tuple(t for t in topics if not any((r.node_name, r.node_namespace) in own for r in readers(t)))

    def _count_camera_info(self, topic: str, report: NodeReport) -> int | None:
        """camera_info messages since the images stopped; None while images arrive or without a publisher."""
        info = f"{topic.removesuffix('/compressed').rpartition('/')[0]}/camera_info"
        silent = (report.number("silent_ms") or 0.0) >= CAMERA_INFO_AFTER_MS
        missed = silent and self._node.count_publishers(info) > 0
        if self._camera_info and (not missed or self._camera_info[0] != info):
            self._unsubscribe()
        if missed and not self._camera_info:
            subscribe = self._node.create_subscription
            self._camera_info = (info, subscribe(CameraInfo, info, self._receive_info, LATEST_IMAGE))
        return self._camera_info_count if missed else None

    def _unsubscribe(self) -> None:
        if self._camera_info:
            self._node.destroy_subscription(self._camera_info[1])
        self._camera_info, self._camera_info_count = None, 0

    def _receive_info(self, message: CameraInfo) -> None:
        self._camera_info_count += 1


def foreign_image_topics(node: Node, own: Sequence[tuple[str, str]]) -> list[str]:
    """Image topics with a publisher other than `own`, which are (node name, namespace)."""
    return [
        topic
        for topic, types in node.get_topic_names_and_types()
        if is_topic_name(topic)
        and any(kind in IMAGE_TYPES for kind in types)
        and any(
            (info.node_name, info.node_namespace) not in own
            for info in node.get_publishers_info_by_topic(topic)
        )
    ]


def is_topic_name(name: str) -> bool:
    """Whether rclpy accepts an absolute topic name. Peers can announce and report any other text."""
    try:
        return bool(validate_full_topic_name(name))
    except (NameValidationException, TypeError):
        return False


def endpoint(info: Any) -> Endpoint:
    """A publisher or subscription, from rclpy's TopicEndpointInfo."""
    qos = info.qos_profile
    deadline_ns = qos.deadline.nanoseconds
    return Endpoint(
        f"{info.node_namespace.rstrip('/')}/{info.node_name}",
        info.topic_type,
        qos.reliability.name.lower(),
        qos.durability.name.lower(),
        deadline_ns if 0 < deadline_ns < 2**62 else 0,
        qos.liveliness.name.lower(),
    )
