"""Runs one trial in its own process: `python -m edge_vision.optimize.trials.process TRIAL ANSWER`."""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_type_hints

from edge_vision.errors import EdgeVisionError
from edge_vision.optimize.errors import DISK_FULL
from edge_vision.optimize.records import decoded
from edge_vision.optimize.trials.executor import EXIT_DISK_FULL

KINDS = {
    "variant": "edge_vision.optimize.quantization.make_variant",
    "sensitivity": "edge_vision.optimize.quantization.sensitivity",
    "measure": "edge_vision.optimize.trials.measure",
    "build": "edge_vision.optimize.trials.build_only",
}
"""Kind -> module with `run(task) -> result`, both dataclasses, which raises EdgeVisionError."""


def run_trial(kind: str, task: dict[str, Any]) -> Any:
    """The result of a trial, as a dataclass. task: its arguments from JSON. Raises EdgeVisionError."""
    module: Any = importlib.import_module(KINDS[kind])
    return module.run(decoded(get_type_hints(module.run)["task"], task))


def main(argv: Sequence[str]) -> int:
    """Run the trial and write the answer. Returns the exit status: 0 or EXIT_DISK_FULL."""
    request, answer = Path(argv[0]), Path(argv[1])
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    trial = json.loads(request.read_text("utf-8"))
    started_s = time.monotonic()
    outcome: dict[str, Any]
    try:
        try:
            outcome = {"status": "done", "result": asdict(run_trial(trial["kind"], trial["task"]))}
        except EdgeVisionError as error:
            outcome = {"status": "failed", "reason": str(error)}
        outcome["wall_s"] = round(time.monotonic() - started_s, 2)
        answer.write_text(json.dumps(outcome), "utf-8")
    except OSError as error:
        if error.errno in DISK_FULL:
            return EXIT_DISK_FULL
        raise
    return 0


def _exit_with_parent() -> None:
    """Exit when standard input ends: the study has ended or was killed."""
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
