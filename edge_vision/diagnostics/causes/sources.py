"""Causes that lie with the pipeline's own source: it cannot be opened, stalls, waits, or is at its end."""

from __future__ import annotations

from edge_vision.diagnostics.causes.base import COUNTED_S, OK, WARN, Cause, Rules
from edge_vision.diagnostics.snapshot import PipelineSnapshot

RULES = Rules()


@RULES.add
def _finished(facts: PipelineSnapshot) -> Cause | None:
    source = facts.stage("source")
    if source is None or facts.flowing or source.values.get("situation") != "finished":
        return None
    trouble = source.values.get("trouble", "")
    text = trouble or f"{source.values.get('uri')} has been played to its end: set loop to repeat it"
    return Cause("source_finished", WARN if trouble else OK, text, COUNTED_S)


@RULES.add
def _trouble(facts: PipelineSnapshot) -> Cause | None:
    source = facts.stage("source")
    trouble = source.values.get("trouble", "") if source else ""
    if source is None or facts.flowing or not trouble:
        return None
    name = "source_asleep" if source.says("asleep") else "source_unavailable"
    return Cause(name, WARN, trouble, COUNTED_S)
