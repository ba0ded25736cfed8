"""`edge-vision COMMAND`, or `python -m edge_vision COMMAND`: one command for all tools.

Imports only the standard library before Ctrl-C can end the process without a traceback.
"""

from __future__ import annotations

import gc
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
    subcommands: tuple[str, ...] = ()


COMMANDS = {
    "demo": Command("edge_vision.cli.demo.command", "compare every-frame detection with the gate on a clip"),
    "run": Command("edge_vision.cli.run.command", "run the pipeline without a launch file, or on a bag"),
    "models": Command(
        "edge_vision.cli.models",
        "fetch, import, list, verify and export model bundles",
        ("fetch", "import", "list", "verify", "show", "export"),
    ),
    "backends": Command(
        "edge_vision.cli.backends",
        "list and measure the runtimes of this device, build engines in advance",
        ("list", "measure", "build"),
    ),
    "optimize": Command(
        "edge_vision.cli.optimize",
        "find the best bundle of a model for this device",
        ("run", "demo", "resume", "report", "explain", "train", "search", "auto"),
    ),
    "evaluate": Command(
        "edge_vision.evaluate.command",
        "measure the gate and the cascade on clips, fit a cascade stage",
        ("schedule", "gate", "cascade", "accuracy", "events", "metrics", "fit-cascade"),
    ),
    "updates": Command(
        "edge_vision.cli.updates",
        "publish signed model updates for groups of robots",
        (
            *("init-repo", "add-key", "publish", "stage", "halt", "reports"),
            *("rotate", "revoke", "timestamp", "show"),
        ),
    ),
    "dataset": Command(
        "edge_vision.cli.dataset",
        "review, export and count the pictures that the collector keeps",
        ("review", "export", "stats"),
    ),
    "doctor": Command("edge_vision.cli.doctor.command", "check the installation and the running system"),
    "top": Command("edge_vision.cli.top.command", "show running pipelines in the terminal"),
    "metrics": Command("edge_vision.cli.metrics.command", "serve metrics of running pipelines to Prometheus"),
    "web": Command("edge_vision.cli.web", "show running pipelines in the browser, live"),
    "completion": Command("edge_vision.cli.completion", "print the shell completion", ("bash",)),
}
_HELP = ("-h", "--help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code: 1 for a missing package, 2 for wrong arguments."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in _HELP:
        print(usage(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments == ["--version"]:
        print(f"edge_vision {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"error: expected a command ({', '.join(COMMANDS)}), got {name!r}", file=sys.stderr)
        return 2
    # There is nothing to clean up while modules are imported: a signal ends the process at once.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit_now)
    return _run(name, rest)


def _run(name: str, arguments: list[str]) -> int:
    try:
        gc.disable()  # As in nodes.cli: imports leave no garbage.
        module: Any = importlib.import_module(COMMANDS[name].module)
        gc.freeze()
        gc.enable()
        return int(module.main(arguments))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("edge_vision"):
            raise
        from edge_vision.core.missing_package import missing_package

        print(f"{name}: {missing_package(error)}", file=sys.stderr)
        return 1


def usage() -> str:
    """The text of `--help`."""
    rows = "\n".join(f"  {name:<10} {command.summary}" for name, command in COMMANDS.items())
    return f"""\
usage: edge-vision COMMAND [arguments]        (python -m edge_vision COMMAND in a checkout)

commands:
{rows}

examples:
  edge-vision demo --source clip.mp4
  edge-vision models import yolo11n.onnx
  edge-vision completion bash > ~/.local/share/bash-completion/completions/edge-vision

`edge-vision COMMAND --help` describes a command, with examples and its exit codes.
exit codes of all commands: 0 done, 1 failed, 2 wrong arguments, 130 and 143 stopped by SIGINT and SIGTERM.
`doctor` and `optimize` have more: see their --help."""


def _exit_now(number: int, frame: Any) -> None:
    os._exit(128 + number)
