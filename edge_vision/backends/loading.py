"""Loads a bundle's graph on one backend: trial in a child process, time limit, values read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edge_vision.backends.base import Backend, BackendActual, BackendRequest, Session
from edge_vision.backends.host import usable_cores
from edge_vision.backends.registry import make_backend
from edge_vision.backends.trial.parent import try_graph
from edge_vision.bundles.manifest import GraphSpec
from edge_vision.bundles.store import Bundle
from edge_vision.core.concurrency.timeout import WorkTimeout, run_with_timeout
from edge_vision.errors import BackendError, BackendUnavailable


def load_on(
    bundle: Bundle, backend_name: str, request: BackendRequest, strict: bool = False, trial: bool = True
) -> Session:
    """Load a bundle's graph on this backend only. Raises BackendError, BundleError.

    strict: raise BackendUnavailable if the requested precision is not met. trial: see `backends.trial`; False
    in a process that exists for this one graph.
    """
    backend = make_backend(backend_name)
    if backend.remote:
        return _loaded(backend, bundle.folder, "unavailable", request, strict)
    backend.check_available()
    if not any(graph.format in backend.formats for graph in bundle.manifest.graphs):
        raise BackendUnavailable(
            f"{backend.name} reads {', '.join(backend.formats)}; bundle {bundle.manifest.name} has "
            f"{', '.join(graph.format for graph in bundle.manifest.graphs)}"
        )
    path, graph = graph_for(bundle, backend, request)
    if trial:
        _try(bundle, backend, path, graph, request)
    return _loaded(backend, path, graph.precision, request, strict)


def _loaded(backend: Backend, path: Path, precision: str, request: BackendRequest, strict: bool) -> Session:
    try:
        session = run_with_timeout(backend.load_limit_s, lambda: backend.load(path, request), _close)
    except WorkTimeout as error:
        raise BackendError(f"{backend.name}: loading hangs, {error}") from None
    session.actual = _completed(session.actual, precision, request)
    if strict and request.precision not in ("auto", session.actual.precision):
        session.close()
        raise BackendUnavailable(f"{backend.name}: {session.actual.notes[-1]}")
    return session


def graph_for(bundle: Bundle, backend: Backend, request: BackendRequest) -> tuple[Path, GraphSpec]:
    """The verified graph that a backend loads: of the requested precision, else the bundle's first one.

    For "auto" it is the one in int8 where the backend prefers it. Raises BundleError.
    """
    has = {graph.precision for graph in bundle.manifest.graphs if graph.format in backend.formats}
    int8 = request.precision == "auto" and "int8" in has and backend.prefers_int8(request.device)
    wanted = "int8" if int8 else request.precision
    return bundle.graph_path(backend.formats, wanted if wanted in has else "auto")


def _try(bundle: Bundle, backend: Backend, path: Path, graph: GraphSpec, request: BackendRequest) -> None:
    spec = bundle.manifest.input
    try_graph(backend, path, request, graph.sha256 + graph.weights_sha256, {spec.name: spec.shape})


def _close(session: Session | None) -> None:
    if session is not None:
        session.close()


def _completed(actual: BackendActual, graph_precision: str, request: BackendRequest) -> BackendActual:
    """Complete what the runtime does not report from the graph, and note differences from the request."""
    precision = graph_precision if actual.precision == "unavailable" else actual.precision
    notes = list(actual.notes)
    if request.threads not in (0, actual.threads):
        runs_on = actual.threads or "an unreported number"
        notes.append(f"requested {request.threads} threads, runs on {runs_on}")
    if request.threads > (cores := usable_cores()):
        notes.append(f"{request.threads} threads compete for {cores} physical cores")
    if request.precision not in ("auto", precision):
        notes.append(f"requested precision {request.precision}, runs {precision}")
    return replace(actual, precision=precision, notes=tuple(notes))
