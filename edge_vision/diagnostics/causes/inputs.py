"""Causes in the input: a source that cannot be opened, stalls or has ended; an image topic that has no
publisher, another type, or an incompatible QoS."""

from __future__ import annotations

from edge_vision.diagnostics.causes.base import COUNTED_S, ERROR, OK, WARN, CauseList, Match
from edge_vision.diagnostics.snapshot import NodeReport, PipelineSnapshot, qos_mismatch, similar_names

CAUSES = CauseList()
_TRANSPORTS = {"sensor_msgs/msg/Image": "raw", "sensor_msgs/msg/CompressedImage": "compressed"}


@CAUSES.add("source_finished", WARN, "Copy or encode the file again.", wait_s=COUNTED_S)
def _truncated(snapshot: PipelineSnapshot) -> Match | None:
    """The source has played its file, which ended before the length that its container states."""
    source = _finished_source(snapshot)
    trouble = source.values.get("trouble", "") if source else ""
    return Match(trouble) if trouble else None


@CAUSES.add("source_finished", OK, "Set `loop` to repeat it.", wait_s=COUNTED_S)
def _finished(snapshot: PipelineSnapshot) -> Match | None:
    """The source has played its file to the end."""
    source = _finished_source(snapshot)
    if source is None:
        return None
    return Match(f"{source.values.get('uri')} has been played to its end: set loop to repeat it")


@CAUSES.add("source_asleep", WARN, "Raise `playback_rate`.", wait_s=COUNTED_S)
def _asleep(snapshot: PipelineSnapshot) -> Match | None:
    """The next image of the file is not due yet."""
    source = _stalled_source(snapshot)
    return Match(source.values["trouble"]) if source and source.flag("asleep") else None


@CAUSES.add(
    "source_unavailable",
    WARN,
    "As stated in the message. The source retries with back-off, except without the package that reads bags.",
    wait_s=COUNTED_S,
)
def _unavailable(snapshot: PipelineSnapshot) -> Match | None:
    """The source cannot open its `uri`, has lost it, or has received no image for 1.8 s."""
    source = _stalled_source(snapshot)
    return Match(source.values["trouble"]) if source else None


def _finished_source(snapshot: PipelineSnapshot) -> NodeReport | None:
    source = snapshot.stage("source")
    if source is None or snapshot.frames_reach_detector or source.values.get("situation") != "finished":
        return None
    return source


def _stalled_source(snapshot: PipelineSnapshot) -> NodeReport | None:
    """The source, if it reports a trouble and no frames reach the detector."""
    source = snapshot.stage("source")
    if source is None or snapshot.frames_reach_detector or not source.values.get("trouble"):
        return None
    return source


@CAUSES.add(
    "no_publisher",
    WARN,
    "Start the camera's driver, remap the topic, or set `image_transport`. If no image has arrived yet, the "
    "message lists the published image topics that no pipeline uses, the most similar name first.",
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
        has_source = "source" not in snapshot.missing
        driver = "start the camera's driver" if has_source else "start the source node, or a camera's driver"
        if stage.number("ledger.received"):
            stopped = f"whose publisher stopped {(stage.number('silent_ms') or 0.0) / 1e3:.0f} s ago"
            return Match(f"{stage.name} subscribes to {images.topic}, {stopped}: {driver}")
        similar = similar_names(images.topic, images.other_topics)
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
