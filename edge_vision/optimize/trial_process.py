"""One trial in a process of its own: `python -m edge_vision.optimize.trial_process TRIAL ANSWER`."""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_vision.errors import EdgeVisionError
from edge_vision.optimize.errors import DISK_FULL
from edge_vision.optimize.trial import EXIT_DISK_FULL

KINDS = {
    "graph": "edge_vision.optimize.quantization.variant",
    "sensitivity": "edge_vision.optimize.quantization.sensitivity",
    "measure": "edge_vision.optimize.measure",
    "build": "edge_vision.optimize.build_only",
}
"""Kind -> module with `run(args) -> result`, both JSON. Raises EdgeVisionError for what cannot be done."""


def main(argv: Sequence[str]) -> int:
    """Do the job and answer. Returns 0, or EXIT_DISK_FULL."""
    asked, answer = Path(argv[0]), Path(argv[1])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads(asked.read_text("utf-8"))
    started = time.monotonic()
    outcome: dict[str, Any]
    try:
        module: Any = importlib.import_module(KINDS[job["kind"]])
        outcome = {"status": "done", "result": module.run(job["args"])}
    except EdgeVisionError as error:
        outcome = {"status": "failed", "reason": str(error)}
    except OSError as error:
        if error.errno in DISK_FULL:
            return EXIT_DISK_FULL
        raise
    try:
        answer.write_text(json.dumps({**outcome, "wall_s": round(time.monotonic() - started, 2)}), "utf-8")
    except OSError as error:
        if error.errno in DISK_FULL:
            return EXIT_DISK_FULL
        raise
    return 0


def _end_with_parent() -> None:
    """Standard input ends when the study does, in whatever way."""
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
