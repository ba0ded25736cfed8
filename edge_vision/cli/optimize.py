"""The command `edge-vision optimize` with all its subcommands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_vision.optimize import command
from edge_vision.train import auto_command
from edge_vision.train import command as train_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    return command.main(argv, _extend)


def _extend(commands: Any) -> None:
    train_command.add_to(commands)
    auto_command.add_to(commands)
