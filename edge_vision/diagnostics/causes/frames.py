"""Causes in the frames: refused, lost, rejected or gated ones, and inputs on which none arrive."""

from __future__ import annotations

from collections.abc import Mapping

from edge_vision.diagnostics.causes.base import COUNTED_S, ERROR, OK, REPORTS_S, WARN, CauseList, Match
from edge_vision.diagnostics.snapshot import ImageInput, PipelineSnapshot

CAUSES = CauseList()
# Longer than the gate's default max_blind_ms plus one frame at 10 Hz.
GATE_CLOSED_MS = 2100.0
# With a larger max_blind_ms no frame is about to pass: together with one report this stays below 3 s.
GATE_CLOSED_LONG_MS = 1800.0
# Reports, a slow inference and a loaded machine may delay the frame that max_blind_ms enforces.
GATE_SLACK_MS = 3000.0
STUCK_MS, STUCK_TIMES_P99 = 1800.0, 5.0
SILENT_MS, SILENT_BESIDE_INFO_MS = 3000.0, 1500.0
# Load does not make an image this old on arrival, as the mailbox keeps the newest; a wrong clock does.
FOREIGN_CLOCK_MS = 10_000.0
TRANSPORT_LOSS = 0.2
BAD_IMAGES = ("too_large", "corrupt_image", "truncated", "bad_size", "bad_step", "zero_size")
LARGE_BYTES = 0.5e6
"""Fast DDS's default shared memory."""
_SENDER_PROFILE = (
    "start the SENDER too with FASTRTPS_DEFAULT_PROFILES_FILE and FASTDDS_DEFAULT_PROFILES_FILE set to "
    "config/fastdds.xml"
)
FAST_DDS = (
    "large images overflow DDS's default buffers: run all in one process (composition:=true), or "
    f"{_SENDER_PROFILE}"
)
_PROFILE = (
    "All in one process, or the Fast DDS profile for the sender: [large images](deployment.md#large-images)."
)


@CAUSES.add("detector_stuck", ERROR, "Check the device's driver; restart the node.", wait_s=0.0)
def _stuck(snapshot: PipelineSnapshot) -> Match | None:
    """An inference has been running for over 1.8 s and for 5 times its p99."""
    detector = snapshot.stage("detector")
    busy_ms = detector.number("busy_ms") if detector else None
    if detector is None or busy_ms is None:
        return None
    p99_ms = detector.number("process_ms.p99") or 0.0
    if busy_ms < max(STUCK_MS, STUCK_TIMES_P99 * p99_ms):
        return None
    usual = f" (usually {p99_ms:.0f} ms)" if p99_ms else ""
    return Match(
        f"the detector has been processing one frame for {busy_ms / 1e3:.1f} s{usual}: the runtime hangs: "
        "check the device's driver and `system`; restart the node if this persists"
    )


@CAUSES.add(
    "unsupported_encoding",
    ERROR,
    "Publish one of the encodings in the message, or install cv_bridge.",
    wait_s=COUNTED_S,
)
def _unsupported_encoding(snapshot: PipelineSnapshot) -> Match | None:
    """All images are refused because of their encoding."""
    if not snapshot.nothing_inferred or not snapshot.increment("failed.unsupported_encoding"):
        return None
    return Match(_last_failure(snapshot, "unsupported_encoding"))


@CAUSES.add(
    "bad_images",
    ERROR,
    "As stated in the message: raise `max_image_megapixels`, or correct the sender.",
    wait_s=COUNTED_S,
)
def _bad_images(snapshot: PipelineSnapshot) -> Match | None:
    """All images are refused because of their size, or because they are damaged."""
    refused = any(snapshot.increment(f"failed.{reason}") for reason in BAD_IMAGES)
    return Match(_last_failure(snapshot, "bad images")) if snapshot.nothing_inferred and refused else None


@CAUSES.add("several_publishers", WARN, "Use one topic per camera.")
def _mixed_images(snapshot: PipelineSnapshot) -> Match | None:
    """Images of several publishers arrive on the image topic: their format changes, or their stamps run
    backwards."""
    for stage, images in snapshot.image_inputs:
        # A killed node stays in the graph for some 20 s beside the one that replaces it.
        reasons = ("failed.stamp_backwards", "failed.stamp_repeated")
        mixed = stage.increments.get("format_changes") or any(map(snapshot.increment, reasons))
        if mixed and len(images.image_publishers) > 1:
            return Match(
                f"{publishers_text(images)}, whose images {stage.name} cannot tell apart: use one topic per "
                "camera"
            )
    return None


@CAUSES.add("bad_stamps", ERROR, "The driver must stamp its images.")
def _bad_stamps(snapshot: PipelineSnapshot) -> Match | None:
    """All images are refused because of their stamps: zero, repeated, or running backwards."""
    for reason in ("stamp_zero", "stamp_repeated", "stamp_backwards", "bad_stamp"):
        refused = snapshot.increment(f"failed.{reason}")
        if snapshot.nothing_inferred and refused:
            # A clock that jumps back costs one image, which may be the only one of a second.
            return Match(_last_failure(snapshot, reason), COUNTED_S if refused > 1 else REPORTS_S)
    return None


@CAUSES.add("transport_loss", WARN, _PROFILE)
def _lost_between_nodes(snapshot: PipelineSnapshot) -> Match | None:
    """A fifth of the images between two nodes is lost."""
    lost, received = snapshot.increment("failed.transport"), snapshot.increment("received")
    if not lost or lost < TRANSPORT_LOSS * received:
        return None
    text = f"the transport lost {lost} of {max(received, lost)} images between two nodes: {FAST_DDS}"
    # While two processes discover each other, frame events arrive before images do.
    return Match(text, COUNTED_S if snapshot.stages[-1].report_count > 5 else REPORTS_S)


@CAUSES.add("transport_loss", WARN, _PROFILE, wait_s=0.0)
def _lost_from_camera(snapshot: PipelineSnapshot) -> Match | None:
    """`camera_info` arrives and the images do not."""
    for stage, images in snapshot.image_inputs:
        silent_ms = stage.number("silent_ms") or 0.0
        if (images.camera_info_count or 0) >= 2 and silent_ms >= SILENT_BESIDE_INFO_MS:
            text = f"no image on {images.topic} for {silent_ms / 1e3:.0f} s while its camera_info arrives"
            return Match(f"{text}: {FAST_DDS}")
    return None


@CAUSES.add("all_rejected", WARN, "`ros2 param set /detector enabled true`", wait_s=COUNTED_S)
def _detector_disabled(snapshot: PipelineSnapshot) -> Match | None:
    """The detector is disabled."""
    if not snapshot.nothing_inferred or not snapshot.increment("rejected.disabled"):
        return None
    command = f"ros2 param set {snapshot.node_path('detector')} enabled true"
    return Match(f"all frames are rejected because the detector is disabled: {command}")


@CAUSES.add(
    "all_rejected",
    OK,
    "Its `wanted_labels`, `score_threshold`, `reject_threshold` and `max_blind_ms`.",
    wait_s=COUNTED_S,
)
def _cascade_rejects(snapshot: PipelineSnapshot) -> Match | None:
    """The cascade rejects all frames."""
    rejected = snapshot.increment("rejected")
    if not snapshot.nothing_inferred or not rejected:
        return None
    return Match(
        f"the cascade rejects all frames, {rejected} in the last second: check its wanted_labels, and lower "
        "its score_threshold, reject_threshold or max_blind_ms"
    )


@CAUSES.add("gate_closed", WARN, "Please report it. Meanwhile, set `enabled` to false.", wait_s=0.0)
def _gate_exceeds_bound(snapshot: PipelineSnapshot) -> Match | None:
    """No frame has passed the gate for 3 s longer than its `max_blind_ms`."""
    gate = snapshot.stage("gate")
    bound_ms = (gate.number("max_blind_ms") or 0.0) if gate else 0.0
    exceeded = gate is not None and (gate.number("blind_ms") or 0.0) > bound_ms + GATE_SLACK_MS
    return _gate_closed(snapshot) if exceeded else None


@CAUSES.add("gate_closed", OK, "Lower `max_blind_ms`, or set `enabled` to false.", wait_s=0.0)
def _gate_closed(snapshot: PipelineSnapshot) -> Match | None:
    """No frame has passed the gate for 2.1 s, or for 1.8 s if `max_blind_ms` is larger; the message states
    the reason."""
    gate = snapshot.stage("gate")
    blind_ms = gate.number("blind_ms") if gate else None
    if gate is None or blind_ms is None or not snapshot.nothing_inferred:
        return None
    bound_ms = gate.number("max_blind_ms") or 0.0
    if blind_ms < (GATE_CLOSED_LONG_MS if bound_ms > GATE_CLOSED_MS else GATE_CLOSED_MS):
        return None
    if not snapshot.increment("gated") and not gate.increments.get("ledger.gated"):
        return None
    return Match(
        f"the gate has been closed for {blind_ms / 1e3:.1f} s, reason: {gate.values.get('last_reason')}: "
        "lower max_blind_ms to infer more often, or set enabled to false to infer all frames"
    )


@CAUSES.add(
    "transport_loss",
    WARN,
    "The Fast DDS profile for the sender, or `reliability: reliable`: "
    "[large images](deployment.md#large-images).",
)
def _lost_in_part(snapshot: PipelineSnapshot) -> Match | None:
    """A third of a camera's images of 0.5 MB or more is lost."""
    for stage, images in snapshot.image_inputs:
        lost, arrived = (stage.increments.get(key, 0) for key in ("lost_images", "ledger.received"))
        size_bytes = stage.number("image_bytes") or LARGE_BYTES  # None has arrived.
        if not stage.flag("first_stage") or lost * 2 <= arrived or size_bytes < LARGE_BYTES:
            continue
        sender = images.publishers[0] if images.publishers else images.subscription
        both = f" on {stage.name}" + (f" and {sender.node}" if sender.reliability == "best_effort" else "")
        return Match(
            f"{arrived} of {arrived + lost} images of {size_bytes / 1e6:.1f} MB arrived on {images.topic} in "
            f"the last second, DDS lost the others: {_SENDER_PROFILE}, or set qos_overrides.{images.topic}."
            f"subscription.reliability to reliable{both}"
        )
    return None


@CAUSES.add("publisher_silent", WARN, "Check whether it is paused or stuck.")
def _publisher_silent(snapshot: PipelineSnapshot) -> Match | None:
    """The camera's driver is running and no image has arrived for 3 s."""
    for stage, images in snapshot.image_inputs:
        # A camera that has just started may need some time for its first image.
        silent_ms = min(stage.number("silent_ms") or 0.0, images.published_ms)
        if stage.flag("first_stage") and silent_ms >= SILENT_MS:
            publisher = images.publishers[0].node
            text = f"{publisher} publishes {images.topic}, but no image arrived for {silent_ms / 1e3:.0f} s"
            return Match(f"{text}: check whether it is paused or stuck. If not, {FAST_DDS}")
    return None


@CAUSES.add(
    "bad_stamps", WARN, "Synchronise the clocks by NTP or PTP; `use_sim_time` for bags.", wait_s=COUNTED_S
)
def _foreign_clock(snapshot: PipelineSnapshot) -> Match | None:
    """Stamps differ from the node's clock by over 10 s. Detections are published, but tf has no transform for
    them."""
    source = snapshot.stage("source")
    if source is not None and has_stamps_of_file(source.values):
        return None
    for stage in snapshot.stages:
        age_ms = stage.number("input_age_ms")
        if age_ms is None or abs(age_ms) < FOREIGN_CLOCK_MS or not stage.increments.get("ledger.received"):
            continue
        side = "behind" if age_ms > 0 else "ahead of"
        return Match(
            f"the images' stamps are {abs(age_ms) / 1e3:.0f} s {side} {stage.name}'s clock: synchronise "
            "them by NTP or PTP; for a bag or simulator, set use_sim_time on all nodes and play with --clock"
        )
    return None


def has_stamps_of_file(source: Mapping[str, str]) -> bool:
    """Whether the stamps are those of a file, unrelated to the clock. source: status values of the source."""
    return bool(source.get("uri")) and source.get("stamps") in ("media", "recorded")


def publishers_text(images: ImageInput) -> str:
    """The publishers of an image topic, as "2 publishers on /image_raw (/front, /rear)"."""
    nodes = images.image_publishers
    return f"{len(nodes)} publishers on {images.topic} ({', '.join(sorted(set(nodes)))})"


def _last_failure(snapshot: PipelineSnapshot, reason: str) -> str:
    """The message of the stage that refused the images."""
    failures = [stage.values.get("last_failure", "") for stage in snapshot.stages]
    return next((text for text in failures if text), f"all frames fail: {reason}")
