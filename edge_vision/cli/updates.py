"""`edge-vision updates`, with the parameters of the nodes, which `updates` does not know."""

from __future__ import annotations

from collections.abc import Sequence

from edge_vision.nodes.interface.live_parameters import parse_live_parameters
from edge_vision.updates import command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    return command.main(argv, parse_live_parameters)
