"""Why is nothing published? From plain facts to one cause, in one sentence with the remedy.

A cause is one rule, a function under `@RULES.add`, in the module of its subject. Within a module the first
rule that fits wins, and what explains other faults stands before them.
"""

from __future__ import annotations

from edge_vision.diagnostics.causes import frames, nodes, sources, topics
from edge_vision.diagnostics.causes.base import COUNTED_S, ERROR, OK, WARN, Cause
from edge_vision.diagnostics.snapshot import PipelineSnapshot

__all__ = ["COUNTED_S", "ERROR", "OK", "WARN", "Cause", "find_cause"]

# A dead node explains a silent source, a silent source an empty topic, and that one what the frames show.
_MODULES = (nodes, sources, topics, frames)


def find_cause(facts: PipelineSnapshot) -> Cause | None:
    """The first cause that fits. None where frames flow, or the pipeline is about to end."""
    if facts.ending:
        return None
    return next((cause for one in _MODULES for rule in one.RULES if (cause := rule(facts))), None)
