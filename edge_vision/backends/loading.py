"""Loads a bundle's graph on one backend: trial in a child process, time limit, what really runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edge_vision.backends.base import Backend, BackendActual, BackendRequest, Session
from edge_vision.backends.host import usable_cores
from edge_vision.backends.registry import make_backend
from edge_vision.backends.trial import try_graph
from edge_vision.bundles.manifest import GraphSpec
from edge_vision.bundles.store import Bundle
from edge_vision.core.concurrency.timeout import WorkTimeout, run_with_timeout
from edge_vision.core.preprocess import input_shape
from edge_vision.errors import BackendError, BackendUnavailable


def load_on(
    bundle: Bundle, backend_name: str, request: BackendRequest, strict: bool = False, trial: bool = True
) -> Session:
    """Load a bundle's graph on this backend and no other. Raises BackendError, BundleError.

    strict: a precision that was asked for is met or BackendUnavailable is raised. trial: see
    `backends.trial`; False for a process that exists for this one graph.
    """
    backend = make_backend(backend_name)
    reason = backend.unavailable_reason()
    if reason:
        raise BackendUnavailable(reason)
    graphs = [graph for graph in bundle.manifest.graphs if graph.format in backend.formats]
    if not graphs:
        raise BackendUnavailable(
            f"{backend.name} reads {', '.join(backend.formats)}; bundle {bundle.manifest.name} has "
            f"{', '.join(graph.format for graph in bundle.manifest.graphs)}"
        )
    has_it = request.precision in {graph.precision for graph in graphs}
    path, graph = bundle.graph_path(backend.formats, request.precision if has_it else "auto")
    if trial:
        _try(bundle, backend, path, graph, request)

    try:
        session = run_with_timeout(backend.load_limit_s, lambda: backend.load(path, request), _close)
    except WorkTimeout as error:
        raise BackendError(f"{backend.name}: loading hangs, {error}") from None
    session.actual = _completed(session.actual, graph.precision, request)
    if strict and request.precision not in ("auto", session.actual.precision):
        session.close()
        raise BackendUnavailable(f"{backend.name}: {session.actual.notes[-1]}")
    return session


def _try(bundle: Bundle, backend: Backend, path: Path, graph: GraphSpec, request: BackendRequest) -> None:
    spec = bundle.manifest.input
    try_graph(backend, path, request, graph.sha256 + graph.weights_sha256, {spec.name: input_shape(spec)})


def _close(session: Session | None) -> None:
    if session is not None:
        session.close()


def _completed(actual: BackendActual, graph_precision: str, request: BackendRequest) -> BackendActual:
    """Fill in what the runtime does not tell from the graph, and note what differs from the request."""
    precision = graph_precision if actual.precision == "unavailable" else actual.precision
    notes = list(actual.notes)
    if request.threads not in (0, actual.threads):
        notes.append(f"asked for {request.threads} threads, runs on {actual.threads or 'an untold number'}")
    if request.threads > (cores := usable_cores()):
        notes.append(f"{request.threads} threads share {cores} physical cores, and wait for each other")
    if request.precision not in ("auto", precision):
        notes.append(f"asked for precision {request.precision}, runs {precision}")
    return replace(actual, precision=precision, notes=tuple(notes))
