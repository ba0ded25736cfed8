"""Why is nothing published? Derives one cause, in one sentence with the remedy, from a PipelineSnapshot.

A cause is one entry: a rule under `@CAUSES.add(...)` in the module of its subject. The first match wins, so a
cause that explains others comes before them. Other packages add theirs to CUSTOM_CAUSES: docs/extending.md.
"""

from __future__ import annotations

from collections.abc import Iterator

from edge_vision.diagnostics.causes import frames, inputs, nodes, outcome
from edge_vision.diagnostics.causes.base import ERROR, OK, WARN, Cause, CauseEntry, CauseList, Match
from edge_vision.diagnostics.snapshot import PipelineSnapshot

__all__ = [
    "CUSTOM_CAUSES",
    "ERROR",
    "OK",
    "WARN",
    "Cause",
    "CauseEntry",
    "Match",
    "cause_entries",
    "find_cause",
]

CUSTOM_CAUSES = CauseList()
"""Causes of other packages, tried before those of `outcome`, which match where nothing else does."""


def cause_entries() -> Iterator[CauseEntry]:
    """All entries in the order in which they are tried."""
    # A dead node explains a silent source, a silent source an unpublished topic, and that the counted frames.
    for causes in (nodes.CAUSES, inputs.CAUSES, frames.CAUSES, CUSTOM_CAUSES, outcome.CAUSES):
        yield from causes


def find_cause(snapshot: PipelineSnapshot) -> Cause | None:
    """The first cause that matches; None if frames flow or the pipeline is shutting down."""
    if snapshot.shutting_down:
        return None
    return next((cause for entry in cause_entries() if (cause := entry.find(snapshot))), None)
