"""The executables of `ros2 run`. A Ctrl-C during the heavy imports ends the process without a traceback."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from functools import partial
from typing import Any

from edge_vision.core.missing_package import missing_package

_NODES = ("source", "gate", "cascade", "detector", "diagnostics", "localizer", "updater", "recorder")
EXECUTABLES = {
    **{f"{name}_node": f"edge_vision.nodes.{name}_node" for name in _NODES},
    "pipeline": "edge_vision.nodes.pipeline",
    "doctor": "edge_vision.cli.doctor.command",
    "top": "edge_vision.cli.top.command",
    "metrics": "edge_vision.cli.metrics.command",
    **dict.fromkeys(("web", "web_node"), "edge_vision.cli.web"),
    "optimize": "edge_vision.cli.optimize",
}


def _start(name: str, args: list[str] | None = None) -> int:
    """Run one executable. During its imports there is nothing to clean up: a signal ends it at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    # Imports create many objects and no garbage: collections during and after them find nothing, and would
    # take a tenth of the time of the start.
    gc.disable()
    try:
        module: Any = importlib.import_module(EXECUTABLES[name])
        gc.freeze()
    except ModuleNotFoundError as error:
        print(f"{name}: {missing_package(error)}", file=sys.stderr)
        return 1
    gc.enable()
    return int(module.main(args))


def _leave(number: int, frame: Any) -> None:
    os._exit(128 + number)


# The functions that setup.py names.
globals().update({name: partial(_start, name) for name in EXECUTABLES})


def main() -> int:
    """`python -m edge_vision.nodes.cli EXECUTABLE [arguments]`: for machines without `ros2 run`."""
    if len(sys.argv) < 2 or sys.argv[1] not in EXECUTABLES:
        print(f"usage: python -m edge_vision.nodes.cli {{{'|'.join(EXECUTABLES)}}} [--help]", file=sys.stderr)
        return 2
    return _start(sys.argv[1], sys.argv[2:])


if __name__ == "__main__":
    raise SystemExit(main())
