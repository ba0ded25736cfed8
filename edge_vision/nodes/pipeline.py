"""The whole pipeline in one process: images are handed on by reference."""

from __future__ import annotations

from collections.abc import Callable

from edge_vision.nodes import run
from edge_vision.nodes.base_node import BaseNode
from edge_vision.nodes.cascade_node import CascadeNode
from edge_vision.nodes.detector_node import DetectorNode
from edge_vision.nodes.diagnostics_node import DiagnosticsNode
from edge_vision.nodes.gate_node import GateNode
from edge_vision.nodes.source_node import SourceNode

# In the order of the flow.
PIPELINE = (SourceNode, GateNode, CascadeNode, DetectorNode, DiagnosticsNode)


def _recorder() -> type[BaseNode]:
    from edge_vision.nodes.recorder_node import RecorderNode  # Only if it is asked for.

    return RecorderNode


def _collector() -> type[BaseNode]:
    from edge_vision.nodes.collector_node import CollectorNode

    return CollectorNode


COMPONENTS: dict[str, Callable[[], type[BaseNode]]] = {"record": _recorder, "collect": _collector}
"""By the parameter of the process; imported only if it is true."""


def main(args: list[str] | None = None) -> int:
    return run.main(PIPELINE, "pipeline", args, COMPONENTS)


def command(args: list[str]) -> int:
    """The same as `edge-vision run`."""
    return run.main(PIPELINE, "edge-vision run", args, COMPONENTS)
