"""Causes that the frames show: what the accounting gained, and how long a stage has had none."""

from __future__ import annotations

from edge_vision.core.ledger import FATES
from edge_vision.diagnostics.causes.base import COUNTED_S, ERROR, OK, REPORTS_S, WARN, Cause, Rules
from edge_vision.diagnostics.snapshot import PipelineSnapshot

RULES = Rules()
# Longer than the gate's default bound on blindness and a frame of a camera at 10 Hz.
GATE_CLOSED_MS = 2100.0
# Where the bound is a longer one, nothing is about to pass: this much and a report's second are under 3 s.
GATE_CLOSED_LONG_MS = 1800.0
STUCK_MS, STUCK_TIMES_P99 = 1800.0, 5.0
SILENT_MS, SILENT_BESIDE_INFO_MS = 3000.0, 1500.0
# No load makes an image this old on arrival, as one slot holds the newest; a clock that is set wrongly does.
FOREIGN_CLOCK_MS = 10_000.0
TRANSPORT_LOSS = 0.2
# What reports, a slow run and a loaded machine may add to the bound on how long the detector is blind.
SLACK_MS = 3000.0
# One frame that failed is no cause where the next one is inferred.
FAILING_MS = 1800.0
FAST_DDS = (
    "large images overflow DDS's default buffers: run all in one process (composition:=true), or start "
    "the SENDER too with FASTRTPS_DEFAULT_PROFILES_FILE and FASTDDS_DEFAULT_PROFILES_FILE set to "
    "config/fastdds.xml"
)


@RULES.add
def _stuck(facts: PipelineSnapshot) -> Cause | None:
    stage = facts.stage("detector")
    busy_ms = stage.number("busy_ms") if stage else None
    if stage is None or busy_ms is None:
        return None
    usual_ms = stage.number("process_ms.p99")
    if busy_ms < max(STUCK_MS, STUCK_TIMES_P99 * (usual_ms or 0.0)):
        return None
    usual = f", where {usual_ms:.0f} ms is usual" if usual_ms else ""
    text = f"the detector has been on one frame for {busy_ms / 1e3:.1f} s{usual}: the runtime hangs"
    remedy = "look at the device's driver and at `system`; restart the node if it stays so"
    return Cause("detector_stuck", ERROR, f"{text}: {remedy}", 0.0)


@RULES.add
def _encoding(facts: PipelineSnapshot) -> Cause | None:
    if not facts.barren or not facts.added("failed.unsupported_encoding"):
        return None
    return Cause("unsupported_encoding", ERROR, _failure(facts, "unsupported_encoding"), COUNTED_S)


@RULES.add
def _several_publishers(facts: PipelineSnapshot) -> Cause | None:
    for stage, intake in facts.intakes:
        nodes = [one.node for one in intake.publishers if one.type == intake.own.type]
        # A node that was killed stays in the graph for some 20 s beside the one that replaces it.
        mixed = facts.added("failed.stamp_backwards") + facts.added("failed.stamp_repeated")
        if len(nodes) > 1 and (len(set(nodes)) > 1 or mixed):
            text = (
                f"{len(nodes)} publishers on {intake.topic} ({', '.join(sorted(set(nodes)))}): {stage.name} "
            )
            remedy = "takes their images for those of one camera: give each camera a topic of its own"
            return Cause("several_publishers", WARN, text + remedy)
    return None


@RULES.add
def _bad_stamps(facts: PipelineSnapshot) -> Cause | None:
    for reason in ("stamp_zero", "stamp_repeated", "stamp_backwards", "bad_stamp"):
        refused = facts.added(f"failed.{reason}")
        if facts.barren and refused:
            # A clock that jumps back costs one image, which may be the only one of a second.
            wait_s = COUNTED_S if refused > 1 else REPORTS_S
            return Cause("bad_stamps", ERROR, _failure(facts, reason), wait_s)
    return None


@RULES.add
def _transport(facts: PipelineSnapshot) -> Cause | None:
    lost, received = facts.added("failed.transport"), facts.added("received")
    if lost and lost >= TRANSPORT_LOSS * received:
        text = f"the transport lost {lost} of {max(received, lost)} images between two nodes"
        # While two processes find each other, ticks come before images do.
        wait_s = COUNTED_S if facts.stages[-1].reports > 5 else REPORTS_S
        return Cause("transport_loss", WARN, f"{text}: {FAST_DDS}", wait_s)
    for stage, intake in facts.intakes:
        silent_ms = stage.number("silent_ms") or 0.0
        if intake.beside and intake.beside >= 2 and silent_ms >= SILENT_BESIDE_INFO_MS:
            text = f"no image on {intake.topic} for {silent_ms / 1e3:.0f} s while its camera_info arrives"
            return Cause("transport_loss", WARN, f"{text}: {FAST_DDS}", 0.0)
    return None


@RULES.add
def _rejected(facts: PipelineSnapshot) -> Cause | None:
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


@RULES.add
def _gate(facts: PipelineSnapshot) -> Cause | None:
    gate = facts.stage("gate")
    blind_ms = gate.number("blind_ms") if gate else None
    if gate is None or blind_ms is None or not facts.barren:
        return None
    bound_ms = gate.number("max_blind_ms") or 0.0
    if blind_ms < (GATE_CLOSED_LONG_MS if bound_ms > GATE_CLOSED_MS else GATE_CLOSED_MS):
        return None
    if not facts.added("gated") and not gate.added.get("ledger.gated"):
        return None
    text = f"the gate has been closed for {blind_ms / 1e3:.1f} s, reason: {gate.values.get('last_reason')}"
    remedy = "lower max_blind_ms to look more often, or set enabled to false to see all frames"
    broken = 0.0 < bound_ms + SLACK_MS < blind_ms
    return Cause("gate_closed", WARN if broken else OK, f"{text}: {remedy}", 0.0)


@RULES.add
def _silent(facts: PipelineSnapshot) -> Cause | None:
    for stage, intake in facts.intakes:
        # A camera that has just come up may take its time for the first image.
        silent_ms = min(stage.number("silent_ms") or 0.0, intake.published_ms)
        if stage.says("first_stage") and silent_ms >= SILENT_MS:
            text = f"{intake.publishers[0].node} publishes {intake.topic}, but no image came for"
            return Cause(
                "publisher_silent",
                WARN,
                f"{text} {silent_ms / 1e3:.0f} s: is it paused or stuck? If not, {FAST_DDS}",
            )
    return None


@RULES.add
def _foreign_clock(facts: PipelineSnapshot) -> Cause | None:
    """Detections are published all the same, but whoever looks the stamp up, as in tf, finds nothing."""
    source = facts.stage("source")
    if source and source.values.get("stamps") == "media" and source.values.get("uri"):
        return None
    for stage in facts.stages:
        age_ms = stage.number("input_age_ms")
        if age_ms is None or abs(age_ms) < FOREIGN_CLOCK_MS or not stage.added.get("ledger.received"):
            continue
        side = "behind" if age_ms > 0 else "ahead of"
        text = (
            f"the images' stamps lie {abs(age_ms) / 1e3:.0f} s {side} {stage.name}'s clock: set the clocks "
            "by NTP or PTP; for a bag or simulator, set use_sim_time on all nodes, and play with --clock"
        )
        return Cause("bad_stamps", WARN, text, COUNTED_S)
    return None


@RULES.add
def _below_threshold(facts: PipelineSnapshot) -> Cause | None:
    detector = facts.stage("detector")
    if detector is None or facts.added("inferred") < 2 or detector.added.get("detections_total"):
        return None
    highest, threshold = detector.number("top_score"), detector.number("score_threshold")
    if highest is None or threshold is None:
        return None
    scores = f"the highest score is {highest:.2f}, the threshold {threshold:.2f}"
    text = f"the detector looks and finds nothing: {scores}"
    remedy = "lower score_threshold if something is there"
    return Cause("below_threshold", OK, f"{text}: {remedy}", COUNTED_S)


@RULES.add
def _failing_node(facts: PipelineSnapshot) -> Cause | None:
    """A node that calls itself faulty, in a way that no other rule knows."""
    failing = next((stage for stage in facts.stages if stage.level == ERROR), None)
    if failing is None or facts.barren_s is None or facts.barren_s * 1e3 < FAILING_MS:
        return None
    return Cause("node_error", ERROR, f"{failing.name}: {failing.message}")


@RULES.add
def _nothing_published(facts: PipelineSnapshot) -> Cause | None:
    """The safety net: no detections for longer than the chain may hold frames back, and no known reason."""
    bounds_ms = [stage.number("max_blind_ms") or 0.0 for stage in facts.stages]
    if facts.unexplained_s is None or facts.unexplained_s * 1e3 < sum(bounds_ms) + SLACK_MS:
        return None
    counts = ", ".join(f"{facts.added(fate)} {fate}" for fate in ("received", *FATES[:-1]))
    text = (
        f"nothing was published for {facts.unexplained_s:.0f} s, where gate and cascade may hold frames back "
    )
    text += f"for {sum(bounds_ms) / 1e3:.1f} s, and no known cause fits (frames of the last second: {counts})"
    remedy = "see the status of each node, and run `python -m edge_vision doctor`"
    return Cause("nothing_published", WARN, f"{text}: {remedy}", 0.0)


def _failure(facts: PipelineSnapshot, reason: str) -> str:
    """What the stage that refused the images said of them."""
    told = [stage.values.get("last_failure", "") for stage in facts.stages]
    return next((text for text in told if text), f"all frames fail: {reason}")
