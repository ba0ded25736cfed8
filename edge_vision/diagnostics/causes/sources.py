"""Causes in the pipeline's own source: it cannot be opened, stalls, waits, or has reached its end."""

from __future__ import annotations

from edge_vision.diagnostics.causes.base import COUNTED_S, OK, WARN, CauseList, Match
from edge_vision.diagnostics.snapshot import NodeReport, PipelineSnapshot

CAUSES = CauseList()


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
    "As stated in the message. The source retries with back-off.",
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
