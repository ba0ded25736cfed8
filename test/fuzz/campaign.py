"""One target's share of a run: starts the child process, watches it, and returns its result.

A target runs in a child process of its own, so that a mutant that kills or hangs it is reported, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from targets import target_class

from edge_vision.core.child_process import child_environment, describe_exit

HERE = Path(__file__).parent
HANG_S = 300.0
"""Without progress; a trial of a graph may take 125 s."""
_POLL_S = 0.1
Result = dict[str, Any]


def run_target(
    path: str, out: Path, seed: int, mutants: int = 0, seconds: float = 0.0, timed: bool = False
) -> Result:
    """The result of a target, "module:Class", after `mutants` mutants and `seconds`.

    out: emptied; gets a folder with the reproducers. timed: whether a slow mutant is a failure.
    """
    target = target_class(path)
    result: Result = {"target": target.name, "skipped": "", "mutants": 0, "failures": []}
    lacking = [name for name in target.needs if find_spec(name) is None]
    if lacking:
        return {**result, "skipped": f"the module {lacking[0]} is not installed: run `make setup-test`"}
    folder = out / target.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    order = {
        "target": path,
        "out": str(folder.absolute()),
        "seed": seed,
        "mutants": mutants,
        "seconds": seconds,
        "timed": timed,
    }
    started_s = time.monotonic()
    death = _run_child(order, folder)
    with contextlib.suppress(OSError, ValueError):
        result.update(json.loads((folder / "result.json").read_text()))
    if death:
        result["failures"].append(_death(folder, death))
    result["seconds"] = round(time.monotonic() - started_s, 1)
    return result


def _run_child(order: Result, folder: Path) -> str:
    """Run the child. Returns how it ended, "" if it wrote its result."""
    command = [sys.executable, str(HERE / "fuzz_child.py"), json.dumps(order)]
    environment = child_environment()
    # A target may come from a module that the caller has imported.
    paths = [str(HERE), *filter(None, sys.path), environment.get("PYTHONPATH", "")]
    environment.update(PYTHONPATH=os.pathsep.join(paths), OPENCV_LOG_LEVEL="SILENT")
    with (folder / "stderr.txt").open("wb") as errors:
        child = subprocess.Popen(command, env=environment, stdout=errors, stderr=errors)
    try:
        hung = _watch(child, folder / "current.bin")
    finally:
        child.kill()
        child.wait()
    if hung:
        return f"made no progress for {HANG_S:.0f} s"
    return describe_exit(child.returncode) if child.returncode else ""


def _watch(child: subprocess.Popen[bytes], current: Path) -> bool:
    """Wait for the end of the child. Returns whether it stopped making progress."""
    changed_s, last = time.monotonic(), 0
    while child.poll() is None:
        time.sleep(_POLL_S)
        with contextlib.suppress(OSError):
            if (now := current.stat().st_mtime_ns) != last:
                changed_s, last = time.monotonic(), now
        if time.monotonic() - changed_s > HANG_S:
            return True
    return False


def _death(folder: Path, how: str) -> Result:
    """The failure of a child that ended early, with the mutant that it had."""
    current = folder / "current.bin"
    data = current.read_bytes() if current.exists() else b""
    index, reproducer = int.from_bytes(data[:8], "little"), folder / "death.bin"
    reproducer.write_bytes(data[8:])
    last = (folder / "stderr.txt").read_text("utf-8", "replace").strip()[-2000:]
    error = f"the process {how}; its last output: {last or 'none'}"
    return {"index": index, "error": error, "reproducer": str(reproducer)}
