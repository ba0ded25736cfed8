"""Causes in the image topic: no publisher, another type, an incompatible QoS."""

from __future__ import annotations

from edge_vision.diagnostics.causes.base import ERROR, WARN, CauseList, Match
from edge_vision.diagnostics.snapshot import PipelineSnapshot, qos_mismatch, similar_names

CAUSES = CauseList()
_TRANSPORTS = {"sensor_msgs/msg/Image": "raw", "sensor_msgs/msg/CompressedImage": "compressed"}


@CAUSES.add(
    "no_publisher",
    WARN,
    "Remap it, or set `image_transport`: the message lists the published image topics, the most similar name "
    "first.",
)
def _no_publisher(snapshot: PipelineSnapshot) -> Match | None:
    """The image topic has no publisher, or only its raw or compressed counterpart has one."""
    for stage, images in snapshot.image_inputs:
        if images.publishers:
            continue
        raw = images.topic.removesuffix("/compressed")
        other, transport = (f"{raw}/compressed", "compressed") if raw == images.topic else (raw, "raw")
        if other in images.other_topics:
            text = f"{stage.name} subscribes to {images.topic}, and only {other} is published"
            return Match(f"{text}: set image_transport: {transport} on {stage.name}")
        similar = similar_names(images.topic, images.other_topics)
        has_source = "source" not in snapshot.missing
        driver = "start the camera's driver" if has_source else "start the source node, or a camera's driver"
        remedy = f"remap the topic to one of {', '.join(similar)}" if similar else driver
        return Match(f"{stage.name} subscribes to {images.topic}, which has no publisher: {remedy}")
    return None


@CAUSES.add("wrong_type", ERROR, "Set `image_transport`, or remap the topic.")
def _wrong_type(snapshot: PipelineSnapshot) -> Match | None:
    """The image topic has another message type."""
    for stage, images in snapshot.image_inputs:
        types = {publisher.type for publisher in images.publishers}
        if not types or images.subscription.type in types:
            continue
        text = f"{images.topic} has type {', '.join(sorted(types))}, {stage.name} expects "
        transport = next((_TRANSPORTS[kind] for kind in types if kind in _TRANSPORTS), None)
        remedy = f"set image_transport to {transport}" if transport else "remap it to an image topic"
        return Match(f"{text}{images.subscription.type}: {remedy}")
    return None


@CAUSES.add("incompatible_qos", ERROR, "Set the `qos_overrides` parameter that the message names.")
def _incompatible_qos(snapshot: PipelineSnapshot) -> Match | None:
    """No publisher offers the QoS that the subscription requests; the message names the policy."""
    for stage, images in snapshot.image_inputs:
        publishers = [one for one in images.publishers if one.type == images.subscription.type]
        mismatches = [qos_mismatch(one, images.subscription) for one in publishers]
        if not mismatches or not all(mismatches):
            continue
        policy, offered, requested = mismatches[0] or ("", "", "")
        return Match(
            f"incompatible QoS on {images.topic}: {publishers[0].node} offers {policy} {offered}, "
            f"{stage.name} requests {requested}: set qos_overrides.{images.topic}.subscription.{policy} "
            f"to {offered} on {stage.name}"
        )
    return None
