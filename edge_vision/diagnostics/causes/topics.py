"""Causes that lie with the topic of the images: no publisher, another type, another QoS."""

from __future__ import annotations

from edge_vision.diagnostics.causes.base import ERROR, WARN, Cause, Rules
from edge_vision.diagnostics.snapshot import PipelineSnapshot, clash, nearest

RULES = Rules()


@RULES.add
def _no_publisher(facts: PipelineSnapshot) -> Cause | None:
    for stage, intake in facts.intakes:
        if intake.publishers:
            continue
        near = nearest(intake.topic, intake.others)
        driver = (
            "start the source node, or a camera's driver"
            if facts.lacks("source")
            else "start the camera's driver"
        )
        remedy = f"remap the topic to one of {', '.join(near)}" if near else driver
        text = f"nobody publishes {intake.topic}, which {stage.name} listens to: {remedy}"
        return Cause("no_publisher", WARN, text)
    return None


@RULES.add
def _wrong_type(facts: PipelineSnapshot) -> Cause | None:
    for stage, intake in facts.intakes:
        types = {publisher.type for publisher in intake.publishers}
        if not types or intake.own.type in types:
            continue
        text = f"{intake.topic} has type {', '.join(sorted(types))}, {stage.name} takes {intake.own.type}: "
        images = {"sensor_msgs/msg/Image": "raw", "sensor_msgs/msg/CompressedImage": "compressed"}
        transport = next((images[kind] for kind in types if kind in images), None)
        remedy = f"set image_transport to {transport}" if transport else "remap it to a topic of images"
        return Cause("wrong_type", ERROR, text + remedy)
    return None


@RULES.add
def _qos(facts: PipelineSnapshot) -> Cause | None:
    for stage, intake in facts.intakes:
        fitting = [one for one in intake.publishers if one.type == intake.own.type]
        clashes = [clash(one, intake.own) for one in fitting]
        if not clashes or not all(clashes):
            continue
        policy, offered, asked = clashes[0] or ("", "", "")
        text = (
            f"incompatible QoS on {intake.topic}: {fitting[0].node} offers {policy} {offered}, {stage.name} "
            f"asks for {asked}: set qos_overrides.{intake.topic}.subscription.{policy} to {offered} "
            f"on {stage.name}"
        )
        return Cause("incompatible_qos", ERROR, text)
    return None
