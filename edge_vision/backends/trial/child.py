"""The child process of a trial: `python -m edge_vision.backends.trial.child ORDER`, ORDER in JSON.

Writes lines of JSON: {"loaded": true}, then {"done": true, "ran": ...}, or {"error": ..., "kind": ...}
instead of either. The graph may kill this process.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_vision.core.child_process import end_with_parent

_Answer = Callable[..., None]
_Image = Callable[[Any], Any]
"""Shape -> values, from 0 to 1 unless stated."""
_MIN_RUNS, _MORE_RUNS_S = 2, 5.0
"""A slow graph runs on fewer images."""


def _limit(order: Mapping[str, Any]) -> None:
    """Set limits that the kernel enforces, and end with the parent."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    cpu_s = int(order["cpu_s"]) if hard == resource.RLIM_INFINITY else min(int(order["cpu_s"]), hard)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, hard))
    # Out of memory, the kernel kills this process before the one that serves.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    end_with_parent(order["parent"])


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
    """Run on several images. False if a run raises: the caller gets the error when it runs the graph."""
    until_s = time.monotonic() + _MORE_RUNS_S
    try:
        for number, image in enumerate(_images()):
            if number < _MIN_RUNS or time.monotonic() < until_s:
                session.run({one.name: _tensor(one, shapes, image) for one in session.inputs})
    except Exception:  # Of any runtime, or an input of a type that numpy lacks.
        return False
    return True


def _images() -> tuple[_Image, ...]:
    """Black, noise, white, a ramp, and noise as inputs have it that are not scaled, or normalised."""
    import numpy as np

    def noise(shape: Any) -> Any:
        return np.random.default_rng(0).random(shape)

    def ramp(shape: Any) -> Any:
        return np.linspace(0, 1, int(np.prod(shape))).reshape(shape)

    return (
        np.zeros,
        noise,
        np.ones,
        ramp,
        lambda shape: 255 * noise(shape),
        lambda shape: 4 * noise(shape) - 2,
    )


def _tensor(spec: Any, shapes: Mapping[str, list[int]], image: _Image) -> Any:
    given = shapes.get(spec.name, ())
    given = given if len(given) == len(spec.shape) else [1] * len(spec.shape)
    shape = tuple(own or other for own, other in zip(spec.shape, given, strict=True))
    values = image(shape)
    return ((values * 255).clip(0, 255) if spec.dtype == "uint8" else values).astype(spec.dtype)


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
