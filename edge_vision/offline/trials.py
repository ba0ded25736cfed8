"""What commands try in a child process with limits, as a node does: reading a model, building an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_vision.backends.base import Backend, BackendRequest
from edge_vision.backends.trial import record
from edge_vision.backends.trial.parent import carry_out, graph_order, trial_key
from edge_vision.bundles.store import sha256_of
from edge_vision.errors import EdgeVisionError, GraphRefused

READ_LIMIT_S = 120.0


def build_engine(
    backend: Backend, graph: Path, request: BackendRequest, gpu: tuple[str, ...]
) -> dict[str, Any]:
    """Build and keep the engine of a graph in a child process. Returns its bytes, built and note.

    Raises what `TensorRtBackend.engine` raises, and GraphRefused.
    """
    order = {**graph_order("engine", backend, graph, request), "gpu": gpu}
    expected = f"expected a graph that {backend.name} can build an engine of"
    return carry_out(order, backend.load_limit_s, expected)


def try_reading(path: Path, reader: str, packages: tuple[str, ...]) -> None:
    """Call `reader`, "module:function", with a model file in a child process, unless it passed before.

    packages: PyPI names of the parsers. Raises GraphRefused if the file kills the process or exceeds a limit;
    not if the reader raises an error.
    """
    key = trial_key(sha256_of(path), path.suffix, packages, BackendRequest(), {})
    if record.passed(key):
        return
    order = {"kind": "file", "graph": str(path.absolute()), "reader": reader}
    try:
        carry_out(order, READ_LIMIT_S, f"{path}: expected a model file that can be read")
    except GraphRefused:
        raise
    except EdgeVisionError:
        return
    record.add(key)
