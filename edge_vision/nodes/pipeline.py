"""The whole pipeline in one process: images are handed on by reference."""

from __future__ import annotations

from edge_vision.nodes import run
from edge_vision.nodes.base_node import BaseNode
from edge_vision.nodes.cascade_node import CascadeNode
from edge_vision.nodes.detector_node import DetectorNode
from edge_vision.nodes.diagnostics_node import DiagnosticsNode
from edge_vision.nodes.gate_node import GateNode
from edge_vision.nodes.source_node import SourceNode

# In the order of the flow.
PIPELINE = (SourceNode, GateNode, CascadeNode, DetectorNode, DiagnosticsNode)


def main(args: list[str] | None = None) -> int:
    return run.main(PIPELINE, "pipeline", args, _recorder)


def command(args: list[str]) -> int:
    """The same as `edge-vision run`."""
    return run.main(PIPELINE, "edge-vision run", args, _recorder)


def _recorder() -> type[BaseNode]:
    from edge_vision.nodes.recorder_node import RecorderNode  # Only if it is asked for.

    return RecorderNode
