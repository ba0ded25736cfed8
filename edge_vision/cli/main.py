"""`python -m edge_vision COMMAND`: one command for all tools.

Imports nothing heavy before Ctrl-C can end the process without a traceback.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from edge_vision import __version__


class Command(NamedTuple):
    module: str
    summary: str


COMMANDS = {
    "demo": Command(
        "edge_vision.cli.demo.command", "run the pipeline on a video and write the results as files"
    ),
    "run": Command("edge_vision.nodes.pipeline", "run the pipeline without a launch file"),
    "models": Command("edge_vision.cli.models", "fetch, import, list and verify model bundles"),
    "backends": Command(
        "edge_vision.cli.backends", "list the runtimes of this device, build engines in advance"
    ),
    "optimize": Command("edge_vision.optimize.command", "find the best bundle of a model for this device"),
    "evaluate": Command(
        "edge_vision.evaluate.command", "measure the gate and the cascade on clips, fit a cascade stage"
    ),
    "doctor": Command("edge_vision.cli.doctor.command", "check the installation and the running system"),
    "top": Command("edge_vision.cli.top.command", "show running pipelines in the terminal"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 2 for an unknown command."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words in ([], ["-h"], ["--help"]):
        print(usage())
        return 0 if words else 2
    if words == ["--version"]:
        print(f"edge_vision {__version__}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        print(f"error: expected a command ({', '.join(COMMANDS)}), got {name!r}", file=sys.stderr)
        return 2
    # While a command still imports there is nothing to clean up: a signal ends the process at once.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit_now)
    module: Any = importlib.import_module(COMMANDS[name].module)
    return int(module.main(rest))


def usage() -> str:
    """The text of `--help`."""
    rows = "\n".join(f"  {name:<10} {command.summary}" for name, command in COMMANDS.items())
    return f"""\
usage: python -m edge_vision COMMAND [arguments]

commands:
{rows}

examples:
  python -m edge_vision demo --source clip.mp4
  python -m edge_vision models import yolo11n.onnx

`python -m edge_vision COMMAND --help` describes a command."""


def _exit_now(number: int, frame: Any) -> None:
    os._exit(128 + number)
