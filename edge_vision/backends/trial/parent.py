"""The first load of a graph on this device happens in a child process: a trial.

A file can make a native parser abort, loop forever or exhaust the memory, and Python cannot stop it. So a
graph is first loaded and run in a child process with limits. If the child dies, the graph is refused with
the reason. A passed trial is recorded in the cache, by the hash of the graph, the backend, the installed
runtimes, the device and the request; from then on the graph is loaded at once.

The limit on memory is on the resident size: runtimes reserve far more address space than they use, so
RLIMIT_AS would refuse valid graphs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import select
import subprocess
import time
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

from edge_vision import __version__, errors
from edge_vision.backends.base import Backend, BackendRequest
from edge_vision.backends.host import driver, installed_packages, processor, usable_cores
from edge_vision.backends.registry import plugin_package
from edge_vision.backends.trial import record
from edge_vision.bundles.store import sha256_of
from edge_vision.core.child_process import child_environment, describe_exit, python_command
from edge_vision.errors import BackendError, EdgeVisionError, GraphRefused

FORMAT = 2
RUN_LIMIT_S = 30.0
MEMORY_LIMIT_BYTES = 8 << 30
"""Of the child; eight times the file size is added."""
_SHARE_OF_AVAILABLE = 0.8
_POLL_MS = 50
_EXIT_LIMIT_S = 5.0
_MAX_ANSWER_BYTES = 1 << 16
_REMEDY = "the file is damaged or the runtime has a defect: export the graph again, or choose another backend"


def try_graph(
    backend: Backend,
    graph: Path,
    request: BackendRequest,
    sha256: str = "",
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Load and run a graph on a backend in a child process, unless it passed before.

    sha256: of the graph's files, computed if not given. shapes: of inputs with free dimensions, by default 1.
    Raises GraphRefused if the graph kills the process or exceeds a limit, and what the backend raises if it
    cannot load the graph; not if a run raises an exception.
    """
    path = _path(backend)
    options = {name: value for name, value in request.options.items() if name != "rebuild"}
    key = trial_key(sha256 or sha256_of(graph), path, backend.distributions, request, options)
    if record.passed(key):
        return
    if (reason := record.refused(key)) is not None:
        raise GraphRefused(reason)
    order = {**graph_order("graph", backend, graph, request), "shapes": dict(shapes or {})}
    try:
        answer = carry_out(
            order, backend.load_limit_s, f"expected a graph that loads and runs on {backend.name}"
        )
    except GraphRefused as error:
        record.refuse(key, str(error))
        raise
    if answer.get("ran"):
        record.add(key)


def _path(backend: Backend) -> str:
    return f"{type(backend).__module__}:{type(backend).__qualname__}"


def graph_order(kind: str, backend: Backend, graph: Path, request: BackendRequest) -> dict[str, Any]:
    """An order about a graph on a backend."""
    return {"kind": kind, "backend": _path(backend), "graph": str(graph), "request": astuple(request)}


def trial_key(
    sha256: str, path: str, packages: tuple[str, ...], request: BackendRequest, options: Mapping[str, Any]
) -> str:
    """The hash of everything that a trial depends on. path: of the backend or format."""
    facts = {
        "format": [FORMAT, __version__],
        "graph": sha256,
        "backend": [path, plugin_package(path), installed_packages(packages)],
        "device": [platform.machine(), processor(), driver()],
        "request": [request.device, request.precision, options],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _memory_limit(graph: Path) -> int:
    import psutil  # Takes 20 ms.

    with contextlib.suppress(OSError):
        wanted = MEMORY_LIMIT_BYTES + 8 * graph.stat().st_size
        return min(wanted, int(_SHARE_OF_AVAILABLE * psutil.virtual_memory().available))
    return MEMORY_LIMIT_BYTES


def start_child(order: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """Start the process that carries out an order, see `child`. Raises OSError."""
    command = python_command("edge_vision.backends.trial.child", json.dumps(order, default=str))
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=child_environment(),
    )


def carry_out(order: Mapping[str, Any], load_limit_s: float, expected: str) -> dict[str, Any]:
    """The last answer of a child to an order. Raises its error, or GraphRefused.

    expected: begins the sentence of a GraphRefused.
    """
    cpu_s = int(1 + (load_limit_s + RUN_LIMIT_S) * usable_cores())  # Of all threads.
    try:
        child = start_child({**order, "cpu_s": cpu_s, "parent": os.getpid()})
    except OSError as error:
        raise GraphRefused(f"{expected}, its trial process cannot be started: {error}") from None
    try:
        output, exceeded = _watched(child, load_limit_s, _memory_limit(Path(order["graph"])))
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    answers = _parsed(output)
    if exceeded:
        raise GraphRefused(f"{expected}, got one whose trial process {exceeded}; {_REMEDY}")
    last = answers[-1] if answers else {}
    if "error" in last:
        raise _error(str(last.get("kind")), str(last["error"]))
    if "done" not in last:
        doing = "running" if answers else "loading"
        how = f"{describe_exit(child.returncode)} while {doing} it"
        raise GraphRefused(f"{expected}, got one whose trial process {how}; {_REMEDY}")
    return last


def _watched(child: subprocess.Popen[bytes], load_limit_s: float, memory_bytes: int) -> tuple[bytes, str]:
    """The output of the child, and the limit that it exceeded, "" for none."""
    assert child.stdout is not None
    output = b""
    poll = select.poll()
    poll.register(child.stdout, select.POLLIN)
    import psutil

    until_s, limit_s, doing, used = time.monotonic() + load_limit_s, load_limit_s, "loading", 0
    while True:
        if poll.poll(_POLL_MS):
            block = os.read(child.stdout.fileno(), _MAX_ANSWER_BYTES)
            if not block or len(output) > _MAX_ANSWER_BYTES:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(_EXIT_LIMIT_S)
                return output, ""
            if b"\n" in block and doing == "loading":
                until_s, limit_s, doing = time.monotonic() + RUN_LIMIT_S, RUN_LIMIT_S, "running"
            output += block
        with contextlib.suppress(psutil.Error):
            used = psutil.Process(child.pid).memory_info().rss
        if used > memory_bytes:
            return output, f"took {used / 1e9:.1f} GB of memory (limit {memory_bytes / 1e9:.1f} GB)"
        if time.monotonic() > until_s:
            return output, f"did not end {doing} it within {limit_s:.0f} s"


def _parsed(output: bytes) -> list[dict[str, Any]]:
    """The child's answers. A child compromised by a hostile file can write anything."""
    try:
        found = [json.loads(line) for line in output[:_MAX_ANSWER_BYTES].splitlines()]
    except (ValueError, RecursionError):
        return []
    return [answer for answer in found if isinstance(answer, dict)]


def _error(kind: str, text: str) -> EdgeVisionError:
    """The error of the child, with the same type."""
    found = getattr(errors, kind, BackendError)
    known = isinstance(found, type) and issubclass(found, EdgeVisionError) and found is not errors.ImageError
    made: EdgeVisionError = found(text) if known else BackendError(text)
    return made
