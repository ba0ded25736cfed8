"""The command `edge-vision optimize` with all its subcommands."""

from __future__ import annotations

from collections.abc import Sequence

from edge_vision.optimize import command
from edge_vision.train.command import add_to


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    return command.main(argv, add_to)
