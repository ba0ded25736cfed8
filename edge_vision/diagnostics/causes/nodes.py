"""Causes that lie with a node: missing, silent, finalized, inactive, or without a clock or a model."""

from __future__ import annotations

from edge_vision.diagnostics.causes.base import ERROR, WARN, Cause, Rules
from edge_vision.diagnostics.snapshot import NodeReport, PipelineSnapshot

RULES = Rules()


@RULES.add
def _missing(facts: PipelineSnapshot) -> Cause | None:
    # A source is optional: without one, the topic of the images has no publisher.
    missing = [name for name in facts.missing if name != "source"]
    if not missing or facts.flowing:
        return None
    names, verb = ", ".join(missing), "is" if len(missing) == 1 else "are"
    remedy = f"start {'it' if len(missing) == 1 else 'them'}, or leave the name out of watched_nodes"
    return Cause("node_missing", ERROR, f"{names} {verb} not running in {facts.namespace}: {remedy}", 0.0)


@RULES.add
def _silent(facts: PipelineSnapshot) -> Cause | None:
    if facts.flowing or not facts.silent:
        return None
    stage = facts.silent[0]
    text = f"{stage.name} has not reported for {stage.silent_s:.0f} s"
    return Cause("node_silent", ERROR, f"{text}: {_fate_of(stage)}", 0.0)


def _fate_of(stage: NodeReport) -> str:
    """What became of a silent node, as far as this machine shows, and what to do."""
    process = f"its process {stage.values.get('pid', '')}".rstrip()
    if stage.message == "stopped" or stage.process == "ended":
        return f"{process} has ended; start it again"
    if stage.process == "stopped":
        return f"{process} is stopped by a signal; continue it with `kill -CONT`"
    return f"{process} hangs, has ended, or is cut off from the network; restart it"


@RULES.add
def _finalized(facts: PipelineSnapshot) -> Cause | None:
    for stage in facts.stages:
        if stage.values.get("state") == "finalized":
            text = f"{stage.name} is finalized and cannot be activated again: restart its process"
            return Cause("node_finalized", ERROR, text)
    return None


@RULES.add
def _sim_time(facts: PipelineSnapshot) -> Cause | None:
    waiting = [stage.name for stage in facts.stages if stage.says("use_sim_time")]
    if not waiting or facts.clock_publishers:
        return None
    return Cause(
        "sim_time_without_clock",
        ERROR,
        f"use_sim_time is set on {', '.join(waiting)}, and nobody publishes /clock: start the simulator, "
        "play the bag with --clock, or set use_sim_time to false",
    )


@RULES.add
def _model(facts: PipelineSnapshot) -> Cause | None:
    for stage in facts.stages:
        failure = stage.values.get("failure", "")
        if stage.values.get("model") == "unavailable" and failure.startswith("cannot configure"):
            return Cause("model_not_loaded", ERROR, f"{stage.name} has no model: {failure}")
    return None


@RULES.add
def _inactive(facts: PipelineSnapshot) -> Cause | None:
    for stage in facts.stages:
        state = stage.values.get("state", "active")
        if state == "active":
            continue
        failure = stage.values.get("failure", "")
        because = f" ({failure})" if failure else ""
        step = {"unconfigured": "configure", "inactive": "activate"}.get(state)
        remedy = (
            f"ros2 lifecycle set {facts.path(stage.name)} {step}" if step else "restart it if it stays so"
        )
        return Cause("node_inactive", WARN, f"{stage.name} is {state}{because}: {remedy}")
    return None
