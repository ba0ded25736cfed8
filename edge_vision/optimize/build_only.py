"""Engines for hardware that is not here: built, so that it is known that they can be, and not run.

A job builds one; its row says so. As nothing was measured on it, such a row can never be chosen.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_vision.backends import BackendRequest, make_backend
from edge_vision.backends.tensorrt import TensorRtBackend
from edge_vision.bundles.store import load_bundle
from edge_vision.errors import BackendError
from edge_vision.optimize.candidate import Candidate, Size
from edge_vision.optimize.quantization.variants import Graphs
from edge_vision.optimize.results import Row, failure, runtime_version
from edge_vision.optimize.trial import Trial, TrialOutcome

PRECISIONS = ("fp32", "int8", "mixed")
"""Half precision is for the builder to choose, and this one takes what the graph says."""


def run(args: Mapping[str, Any]) -> dict[str, Any]:
    """Job. args: bundle (folder), backend. Returns engine_bytes, build_s, version. Raises BackendError."""
    backend = make_backend(args["backend"])
    if not isinstance(backend, TensorRtBackend):
        raise BackendError(f"expected a backend that builds engines, got {backend.name}")
    bundle = load_bundle(f"{args['bundle']}/")
    path = bundle.verify(bundle.manifest.graphs[0])
    started = time.monotonic()
    # Not kept: an engine that was built without its GPU is opened by none.
    with tempfile.TemporaryDirectory() as folder:
        kept = backend.engine(path, BackendRequest(options={"cache_dir": Path(folder)}))
    return {"engine_bytes": len(kept.engine), "build_s": round(time.monotonic() - started, 2)}


def built_rows(
    backends: Sequence[str],
    precisions: Sequence[str],
    size: Size,
    graphs: Graphs,
    kept: Sequence[str],
    job: Callable[[Trial], TrialOutcome],
) -> Iterator[Row]:
    """A row for each; status "built", or "failed" with the reason. kept: nodes that mixed leaves in fp32."""
    for backend in backends:
        for precision in precisions:
            if precision in PRECISIONS and (precision != "mixed" or kept):
                yield _row(Candidate(backend, precision, size, 1), graphs, kept, job)


def _row(
    candidate: Candidate, graphs: Graphs, kept: Sequence[str], job: Callable[[Trial], TrialOutcome]
) -> Row:
    row: Row = {
        "id": candidate.id,
        "backend": candidate.backend,
        "precision": candidate.precision,
        "size": str(candidate.size),
        "threads": candidate.threads,
        "graph": graphs.folder_of(candidate),
    }
    outcome = graphs.made(candidate, kept)
    if outcome.status != "done":
        return {**row, **failure(outcome)}
    row.update(bytes=outcome.result["bytes"], graph_sha256=outcome.result["sha256"])
    row.update(quantized=outcome.result.get("effective"), graph_why=outcome.result.get("why", ""))
    args = {
        "bundle": row["graph"],
        "backend": candidate.backend,
        "hashes": [row["graph_sha256"]],
        "runtime": runtime_version("tensorrt-rtx-cu13"),
    }
    outcome = job(Trial("build", candidate.id, args))
    if outcome.status != "done":
        return {**row, **failure(outcome)}
    told = f"an engine of {outcome.result['engine_bytes'] / 1e6:.1f} MB in {outcome.result['build_s']:.1f} s"
    reason = f"built, not run: {told}; nothing was measured on it, so that it cannot be chosen"
    return {**row, **outcome.result, "status": "built", "reason": reason}
