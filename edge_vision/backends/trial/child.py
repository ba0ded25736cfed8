"""The child process of a trial: `python -m edge_vision.backends.trial.child ORDER`, ORDER in JSON.

Writes lines of JSON: {"loaded": true}, then {"done": true, "ran": ...}, or {"error": ..., "kind": ...}
instead of either. The graph may kill this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_Answer = Callable[..., None]


def _limit(order: Mapping[str, Any]) -> None:
    """Set limits that the kernel enforces, and end with the parent."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    cpu_s = int(order["cpu_s"]) if hard == resource.RLIM_INFINITY else min(int(order["cpu_s"]), hard)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, hard))
    # Out of memory, the kernel kills this process before the one that serves.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != order["parent"]:
        os._exit(1)


def _graph(order: Mapping[str, Any], answer: _Answer) -> None:
    backend, request = _backend_and_request(order)
    session = backend.load(Path(order["graph"]), request)
    answer(loaded=True)
    answer(done=True, ran=_ran(session, order["shapes"]))


def _backend_and_request(order: Mapping[str, Any]) -> tuple[Any, Any]:
    from edge_vision.backends.base import BackendRequest

    module, _, name = order["backend"].partition(":")
    return getattr(importlib.import_module(module), name)(), BackendRequest(*order["request"])


def _engine(order: Mapping[str, Any], answer: _Answer) -> None:
    from edge_vision.backends.runtimes.cuda_driver import GpuIdentity

    backend, request = _backend_and_request(order)
    kept = backend.engine(Path(order["graph"]), request, GpuIdentity(*order["gpu"]))
    answer(done=True, bytes=len(kept.engine), built=kept.built, note=kept.note)


def _ran(session: Any, shapes: Mapping[str, list[int]]) -> bool:
    """Run on zeros and on noise. False if a run raises: the caller gets the error when it runs the graph."""
    import numpy as np

    try:
        for values in (np.zeros, np.random.default_rng(0).random):
            session.run({one.name: _tensor(one, shapes, values) for one in session.inputs})
    except Exception:  # Of any runtime, or an input of a type that numpy lacks.
        return False
    return True


def _tensor(spec: Any, shapes: Mapping[str, list[int]], values: Callable[..., Any]) -> Any:
    given = shapes.get(spec.name, ())
    given = given if len(given) == len(spec.shape) else [1] * len(spec.shape)
    shape = tuple(own or other for own, other in zip(spec.shape, given, strict=True))
    scale = 255 if spec.dtype == "uint8" else 1
    return (values(shape) * scale).astype(spec.dtype)


def _file(order: Mapping[str, Any], answer: _Answer) -> None:
    module, _, name = order["reader"].partition(":")
    getattr(importlib.import_module(module), name)(Path(order["graph"]))
    answer(done=True)


_KINDS = {"graph": _graph, "engine": _engine, "file": _file}


def main() -> int:
    """Carry out the order. Skips the exit handlers of runtimes, which may crash after success."""
    # Keep the output of runtimes apart from the answers.
    out = os.dup(1)
    os.dup2(2, 1)

    def answer(**values: Any) -> None:
        os.write(out, json.dumps(values).encode() + b"\n")

    try:
        order = json.loads(sys.argv[1])
        _limit(order)
        _KINDS[order["kind"]](order, answer)
    except Exception as error:  # A runtime may raise anything.
        answer(error=str(error)[:4000] or type(error).__name__, kind=type(error).__name__)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
