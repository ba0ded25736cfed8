"""Trial: builds an engine for a device that this machine lacks, to check that it can be built.

Nothing is measured on such an engine, so it can never be chosen.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from edge_vision.backends import BackendRequest, make_backend
from edge_vision.backends.runtimes.tensorrt import TensorRtBackend
from edge_vision.bundles.store import load_bundle
from edge_vision.errors import BackendError

PRECISIONS = ("fp32", "int8", "mixed")
"""Those that the graph states. The builder chooses half precision by itself."""


@dataclass(frozen=True, slots=True)
class BuildTask:
    """bundle: folder."""

    bundle: str
    backend: str


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """Size and build time of an engine."""

    engine_bytes: int
    build_s: float


def run(task: BuildTask) -> BuiltEngine:
    """Build an engine and discard it. Raises BackendError, BundleError."""
    backend = make_backend(task.backend)
    if not isinstance(backend, TensorRtBackend):
        raise BackendError(f"expected a backend that builds engines, got {backend.name}")
    bundle = load_bundle(f"{task.bundle}/")
    path = bundle.verify(bundle.manifest.graphs[0])
    started_s = time.monotonic()
    # An engine that was built without its GPU cannot be loaded, so it is not kept.
    with tempfile.TemporaryDirectory() as folder:
        built = backend.engine(path, BackendRequest(options={"cache_dir": Path(folder)}))
    return BuiltEngine(len(built.engine), round(time.monotonic() - started_s, 2))
