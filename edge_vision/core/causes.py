"""Why is nothing published? From plain facts to one cause, in one sentence with the remedy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_vision.core.facts import Facts, Intake, Stage, clash, nearest

OK, WARN, ERROR = 0, 1, 2
# Longer than the gate's default bound on blindness and a frame of a camera at 10 Hz.
GATE_CLOSED_MS = 2100.0
# Where the bound is a longer one, nothing is about to pass: this much and a report's second are under 3 s.
GATE_CLOSED_LONG_MS = 1800.0
STUCK_MS, STUCK_TIMES_P99 = 1800.0, 5.0
SILENT_MS, SILENT_BESIDE_INFO_MS = 3000.0, 1500.0
# No load makes an image this old on arrival, as one slot holds the newest; a clock that is set wrongly does.
FOREIGN_CLOCK_MS = 10_000.0
TRANSPORT_LOSS = 0.2
# What was counted over the second between two reports need not be seen for much longer.
COUNTED_S = 0.4
# What may be gone with the next report must be in that one too.
REPORTS_S = 1.2
FAST_DDS = (
    "large images overflow DDS's default buffers: run all in one process (composition:=true), or start "
    "the SENDER too with FASTRTPS_DEFAULT_PROFILES_FILE and FASTDDS_DEFAULT_PROFILES_FILE set to "
    "config/fastdds.xml"
)


@dataclass(frozen=True, slots=True)
class Cause:
    """name: a word. level: OK where a setting may want it so. text: what is wrong, and what to do. wait_s: it
    must be seen for this long, as what is only on its way up or down is none."""

    name: str
    level: int
    text: str
    wait_s: float = REPORTS_S


def find_cause(facts: Facts) -> Cause | None:
    """The first cause that fits, the ones that explain others first. None where all is well, or ending."""
    if any(stage.message == "stopped" for stage in facts.stages):
        return None
    return next((cause for rule in _RULES if (cause := rule(facts))), None)


def _sim_time(facts: Facts) -> Cause | None:
    waiting = [stage.name for stage in facts.stages if stage.says("use_sim_time")]
    if not waiting or facts.clock_publishers:
        return None
    return Cause(
        "sim_time_without_clock",
        ERROR,
        f"use_sim_time is set on {', '.join(waiting)}, and nobody publishes /clock: start the simulator, "
        "play the bag with --clock, or set use_sim_time to false",
    )


def _model(facts: Facts) -> Cause | None:
    for stage in facts.stages:
        failure = stage.values.get("failure", "")
        if stage.values.get("model") == "unavailable" and failure.startswith("cannot configure"):
            return Cause("model_not_loaded", ERROR, f"{stage.name} has no model: {failure}")
    return None


def _inactive(facts: Facts) -> Cause | None:
    for stage in facts.stages:
        state = stage.values.get("state", "active")
        if state == "active":
            continue
        step = "configure" if state == "unconfigured" else "activate"
        failure = stage.values.get("failure", "")
        because = f" ({failure})" if failure else ""
        remedy = f"ros2 lifecycle set {facts.path(stage.name)} {step}"
        return Cause("node_inactive", WARN, f"{stage.name} is {state}{because}: {remedy}")
    return None


def _no_publisher(facts: Facts) -> Cause | None:
    for stage, intake in _intakes(facts):
        if intake.publishers:
            continue
        near = nearest(intake.topic, intake.others)
        remedy = f"remap the topic to one of {', '.join(near)}" if near else "start the camera's driver"
        text = f"nobody publishes {intake.topic}, which {stage.name} listens to: {remedy}"
        return Cause("no_publisher", WARN, text)
    return None


def _wrong_type(facts: Facts) -> Cause | None:
    for stage, intake in _intakes(facts):
        types = {publisher.type for publisher in intake.publishers}
        if not types or intake.own.type in types:
            continue
        text = f"{intake.topic} has type {', '.join(sorted(types))}, {stage.name} takes {intake.own.type}: "
        images = {"sensor_msgs/msg/Image": "raw", "sensor_msgs/msg/CompressedImage": "compressed"}
        transport = next((images[kind] for kind in types if kind in images), None)
        remedy = f"set image_transport to {transport}" if transport else "remap it to a topic of images"
        return Cause("wrong_type", ERROR, text + remedy)
    return None


def _qos(facts: Facts) -> Cause | None:
    for stage, intake in _intakes(facts):
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


def _stuck(facts: Facts) -> Cause | None:
    stage = facts.stage("detector")
    busy_ms = stage.figure("busy_ms") if stage else None
    if stage is None or busy_ms is None:
        return None
    usual_ms = stage.figure("process_ms.p99")
    if busy_ms < max(STUCK_MS, STUCK_TIMES_P99 * (usual_ms or 0.0)):
        return None
    usual = f", where {usual_ms:.0f} ms is usual" if usual_ms else ""
    text = f"the detector has been on one frame for {busy_ms / 1e3:.1f} s{usual}: the runtime hangs"
    remedy = "look at the device's driver and at `system`; restart the node if it stays so"
    return Cause("detector_stuck", ERROR, f"{text}: {remedy}", 0.0)


def _encoding(facts: Facts) -> Cause | None:
    if not facts.barren or not facts.added("failed.unsupported_encoding"):
        return None
    return Cause("unsupported_encoding", ERROR, _failure(facts, "unsupported_encoding"), COUNTED_S)


def _bad_stamps(facts: Facts) -> Cause | None:
    for reason in ("stamp_zero", "stamp_repeated", "stamp_backwards", "bad_stamp"):
        refused = facts.added(f"failed.{reason}")
        if facts.barren and refused:
            # A clock that jumps back costs one image, which may be the only one of a second.
            wait_s = COUNTED_S if refused > 1 else REPORTS_S
            return Cause("bad_stamps", ERROR, _failure(facts, reason), wait_s)
    return None


def _foreign_clock(facts: Facts) -> Cause | None:
    """Detections are published all the same, but whoever looks the stamp up, as in tf, finds nothing."""
    source = facts.stage("source")
    if source and source.values.get("stamps") == "media" and source.values.get("uri"):
        return None
    for stage in facts.stages:
        age_ms = stage.figure("input_age_ms")
        if age_ms is None or abs(age_ms) < FOREIGN_CLOCK_MS or not stage.added.get("ledger.received"):
            continue
        side = "behind" if age_ms > 0 else "ahead of"
        text = (
            f"the images' stamps lie {abs(age_ms) / 1e3:.0f} s {side} {stage.name}'s clock: set the clocks "
            "by NTP or PTP; for a bag or simulator, set use_sim_time on all nodes, and play with --clock"
        )
        return Cause("bad_stamps", WARN, text, COUNTED_S)
    return None


def _transport(facts: Facts) -> Cause | None:
    lost, received = facts.added("failed.transport"), facts.added("received")
    if lost and lost >= TRANSPORT_LOSS * received:
        text = f"the transport lost {lost} of {max(received, lost)} images between two nodes"
        # While two processes find each other, ticks come before images do.
        wait_s = COUNTED_S if facts.stages[-1].reports > 5 else REPORTS_S
        return Cause("transport_loss", WARN, f"{text}: {FAST_DDS}", wait_s)
    for stage, intake in _intakes(facts):
        silent_ms = stage.figure("silent_ms") or 0.0
        if intake.beside and intake.beside >= 2 and silent_ms >= SILENT_BESIDE_INFO_MS:
            text = f"no image on {intake.topic} for {silent_ms / 1e3:.0f} s while its camera_info arrives"
            return Cause("transport_loss", WARN, f"{text}: {FAST_DDS}", 0.0)
    return None


def _rejected(facts: Facts) -> Cause | None:
    rejected = facts.added("rejected")
    if not facts.barren or not rejected:
        return None
    if facts.added("rejected.disabled"):
        remedy = f"ros2 param set {facts.path('detector')} enabled true"
        return Cause(
            "all_rejected", WARN, f"all frames are rejected, as the detector is disabled: {remedy}", COUNTED_S
        )
    text = f"the cascade rejects everything, {rejected} frames in the last second"
    remedy = "see its wanted_labels, and lower its score_threshold, reject_threshold or max_blind_ms"
    return Cause("all_rejected", OK, f"{text}: {remedy}", COUNTED_S)


def _gate(facts: Facts) -> Cause | None:
    gate = facts.stage("gate")
    blind_ms = gate.figure("blind_ms") if gate else None
    if gate is None or blind_ms is None or not facts.barren:
        return None
    bound_ms = gate.figure("max_blind_ms") or 0.0
    if blind_ms < (GATE_CLOSED_LONG_MS if bound_ms > GATE_CLOSED_MS else GATE_CLOSED_MS):
        return None
    if not facts.added("gated") and not gate.added.get("ledger.gated"):
        return None
    text = f"the gate has been closed for {blind_ms / 1e3:.1f} s, reason: {gate.values.get('last_reason')}"
    remedy = "lower max_blind_ms to look more often, or set enabled to false to see all frames"
    return Cause("gate_closed", OK, f"{text}: {remedy}", 0.0)


def _silent(facts: Facts) -> Cause | None:
    for stage, intake in _intakes(facts):
        # A camera that has just come up may take its time for the first image.
        silent_ms = min(stage.figure("silent_ms") or 0.0, intake.published_ms)
        if stage.says("first_stage") and silent_ms >= SILENT_MS:
            text = f"{intake.publishers[0].node} publishes {intake.topic}, but no image came for"
            return Cause(
                "publisher_silent",
                WARN,
                f"{text} {silent_ms / 1e3:.0f} s: is it paused or stuck? If not, {FAST_DDS}",
            )
    return None


def _below_threshold(facts: Facts) -> Cause | None:
    detector = facts.stage("detector")
    if detector is None or facts.added("inferred") < 2 or detector.added.get("detections_total"):
        return None
    highest, threshold = detector.figure("top_score"), detector.figure("score_threshold")
    if highest is None or threshold is None:
        return None
    scores = f"the highest score is {highest:.2f}, the threshold {threshold:.2f}"
    text = f"the detector looks and finds nothing: {scores}"
    remedy = "lower score_threshold if something is there"
    return Cause("below_threshold", OK, f"{text}: {remedy}", COUNTED_S)


_RULES: tuple[Callable[[Facts], Cause | None], ...] = (
    _sim_time,
    _model,
    _inactive,
    _no_publisher,
    _wrong_type,
    _qos,
    _stuck,
    _encoding,
    _bad_stamps,
    _transport,
    _rejected,
    _gate,
    _silent,
    _foreign_clock,
    _below_threshold,
)


def _intakes(facts: Facts) -> Sequence[tuple[Stage, Intake]]:
    return [(stage, stage.intake) for stage in facts.stages if stage.intake]


def _failure(facts: Facts, reason: str) -> str:
    """What the stage that refused the images said of them."""
    told = [stage.values.get("last_failure", "") for stage in facts.stages]
    return next((text for text in told if text), f"all frames fail: {reason}")
