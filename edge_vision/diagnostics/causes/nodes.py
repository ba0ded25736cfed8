"""Causes in a node: missing, silent, finalized, inactive, or without a clock or a model."""

from __future__ import annotations

from edge_vision.diagnostics.causes.base import ERROR, WARN, CauseList, Match
from edge_vision.diagnostics.snapshot import NodeReport, PipelineSnapshot

CAUSES = CauseList()


@CAUSES.add("node_missing", ERROR, "Start the node, or remove it from `watched_nodes`.", wait_s=0.0)
def _missing(snapshot: PipelineSnapshot) -> Match | None:
    """A node in `watched_nodes` has never reported. A source may be absent."""
    # A source is optional: without one, the image topic has no publisher.
    missing = [name for name in snapshot.missing if name != "source"]
    if not missing or snapshot.frames_reach_detector:
        return None
    verb, it = ("is", "it") if len(missing) == 1 else ("are", "them")
    text = f"{', '.join(missing)} {verb} not running in {snapshot.namespace}"
    return Match(f"{text}: start {it}, or remove {it} from watched_nodes")


@CAUSES.add("node_silent", ERROR, "Restart or continue its process.", wait_s=0.0)
def _silent(snapshot: PipelineSnapshot) -> Match | None:
    """A node has not reported for 2.3 s and no frames reach the detector: its process was killed or stopped,
    or hangs."""
    if snapshot.frames_reach_detector or not snapshot.silent:
        return None
    stage = snapshot.silent[0]
    return Match(f"{stage.name} has not reported for {stage.silent_s:.0f} s: {_process_advice(stage)}")


def _process_advice(stage: NodeReport) -> str:
    """The state of a silent node's process, as far as it is known, and what to do."""
    process = f"its process {stage.values.get('pid', '')}".rstrip()
    if stage.message == "stopped" or stage.process_state == "ended":
        return f"{process} has ended; start it again"
    if stage.process_state == "stopped":
        return f"{process} is stopped by a signal; continue it with `kill -CONT`"
    return f"{process} hangs, has ended, or is cut off from the network; restart it"


@CAUSES.add("node_finalized", ERROR, "Restart its process.")
def _finalized(snapshot: PipelineSnapshot) -> Match | None:
    """A life-cycle transition has shut a node down, which is final; its process keeps running."""
    for stage in snapshot.stages:
        if stage.values.get("state") == "finalized":
            return Match(f"{stage.name} is finalized and cannot be activated again: restart its process")
    return None


@CAUSES.add(
    "sim_time_without_clock",
    ERROR,
    "Start the simulator, play the bag with `--clock`, or set `use_sim_time` to false.",
)
def _sim_time(snapshot: PipelineSnapshot) -> Match | None:
    """A node has `use_sim_time`, and `/clock` has no publisher."""
    waiting = [stage.name for stage in snapshot.stages if stage.flag("use_sim_time")]
    if not waiting or snapshot.clock_publishers:
        return None
    return Match(
        f"use_sim_time is set on {', '.join(waiting)}, and /clock has no publisher: start the simulator, "
        "play the bag with --clock, or set use_sim_time to false"
    )


@CAUSES.add("model_not_loaded", ERROR, "As stated in the message. The node retries every 5 s.")
def _model(snapshot: PipelineSnapshot) -> Match | None:
    """The detector or cascade could not load its bundle or open its backend."""
    for stage in snapshot.stages:
        failure = stage.values.get("failure", "")
        if stage.values.get("model") == "unavailable" and failure.startswith("cannot configure"):
            return Match(f"{stage.name} has no model: {failure}")
    return None


@CAUSES.add("node_inactive", WARN, "`ros2 lifecycle set`, as stated in the message.")
def _inactive(snapshot: PipelineSnapshot) -> Match | None:
    """A stage is unconfigured or inactive."""
    for stage in snapshot.stages:
        state = stage.values.get("state", "active")
        if state == "active":
            continue
        failure = stage.values.get("failure", "")
        reason = f" ({failure})" if failure else ""
        step = {"unconfigured": "configure", "inactive": "activate"}.get(state)
        path = snapshot.node_path(stage.name)
        remedy = f"ros2 lifecycle set {path} {step}" if step else "restart it if the state persists"
        return Match(f"{stage.name} is {state}{reason}: {remedy}")
    return None
