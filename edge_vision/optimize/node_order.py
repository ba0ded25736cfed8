"""The order of a graph's nodes."""

from __future__ import annotations

from typing import Any

from edge_vision.optimize.errors import OptimizeError


def sorted_nodes(graph: Any) -> list[Any]:
    """The nodes, each after those that it depends on: quantizers append nodes in any order.

    Raises OptimizeError for a graph with a cycle.
    """
    known = {value.name for value in (*graph.input, *graph.initializer)} | {""}
    waiting, found = list(graph.node), []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        if not ready:
            raise OptimizeError(f"expected a graph without cycles, got one at {waiting[0].name}")
        known.update(name for node in ready for name in node.output)
        found += ready
        done = {id(node) for node in ready}
        waiting = [node for node in waiting if id(node) not in done]
    return found
