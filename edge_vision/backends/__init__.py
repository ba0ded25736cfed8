"""Backends: the runtimes that can run a graph, and which one runs it.

A new one is one file and one line here.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_vision.backends.base import Backend, BackendActual, BackendRequest, Choice, Session, TensorSpec
from edge_vision.backends.host import usable_cores
from edge_vision.backends.plugins import ENTRY_POINT_GROUP, note_import, plugins
from edge_vision.backends.trial import try_graph
from edge_vision.core.patience import Patience, within
from edge_vision.errors import BackendError, BackendUnavailable

if TYPE_CHECKING:
    from edge_vision.bundles.manifest import GraphSpec
    from edge_vision.bundles.store import Bundle

# Name -> "module:Class", in the order in which "auto" tries them. Imported when used.
BACKENDS: dict[str, str] = {
    "onnxruntime": "edge_vision.backends.onnxruntime:OnnxRuntimeBackend",
    "openvino": "edge_vision.backends.openvino:OpenVinoBackend",
    "tensorrt": "edge_vision.backends.tensorrt:TensorRtBackend",
    "tensorrt_rtx": "edge_vision.backends.tensorrt:TensorRtRtxBackend",
    "litert": "edge_vision.backends.litert:LiteRtBackend",
}

__all__ = [
    "BACKENDS",
    "ENTRY_POINT_GROUP",
    "Backend",
    "BackendActual",
    "BackendReport",
    "BackendRequest",
    "Session",
    "TensorSpec",
    "available_backends",
    "known_backends",
    "load_on",
    "make_backend",
    "open_session",
]


@dataclass(frozen=True, slots=True)
class BackendReport:
    """What was asked for, what runs, and why they differ where they do.

    requested: backend, device, precision, threads. fallback_reason: None where the request was met.
    choice: why "auto" took this backend, "" where it was named.
    """

    requested: dict[str, str | int]
    actual: BackendActual
    fallback_reason: str | None = None
    choice: str = ""


def known_backends() -> dict[str, str]:
    """Name -> "module:Class" of every backend, this package's own first and not to be replaced."""
    others = {name: point.value for name, point in plugins().items()}
    return {**BACKENDS, **{name: value for name, value in others.items() if name not in BACKENDS}}


def _check_known(names: Sequence[str]) -> None:
    known = known_backends()
    for name in names:
        if name not in known and name != "auto":
            raise BackendError(f"expected a backend out of auto, {', '.join(known)}, got '{name}'")


def make_backend(name: str) -> Backend:
    """The backend of that name, installed or not. Raises BackendError for an unknown or broken one."""
    _check_known([name])
    place = known_backends().get(name, "")
    module, _, attribute = place.partition(":")
    try:
        backend: Backend = getattr(importlib.import_module(module), attribute)()
        if name not in BACKENDS:
            note_import(name)
    except Exception as error:  # A third party's module may fail in any way.
        raise BackendError(f"backend '{name}' cannot be imported from {place}: {error}") from error
    return backend


def available_backends() -> dict[str, str | None]:
    """Name -> None where it can run here, else why not and what to do."""
    return {name: _reason(name) for name in known_backends()}


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One thing to try. relaxed: it is less than, or other than, what was asked for."""

    backend: str
    request: BackendRequest
    relaxed: bool


FALLBACK = ("onnxruntime", "openvino")
"""What is tried where the backend that was asked for does not work."""


def open_session(
    bundle: Bundle,
    backend: str = "auto",
    request: BackendRequest | None = None,
    strict: bool = False,
    fallback: Sequence[str] = FALLBACK,
    failed: Mapping[str, str] | None = None,
) -> tuple[Session, BackendReport]:
    """Load a bundle's graph on the backend that was asked for, or on the next best one.

    "auto" takes the fastest that agrees with the others (see `choice`). Where the request cannot be met, the
    device is left to the backend, then those of `fallback` are tried, and the report says why. With strict
    the request is met or BackendUnavailable is raised. failed: backends that failed while they ran, and how:
    they come last. Raises BackendError where nothing can load the graph, BundleError where the graph file is
    not the one that the bundle names.
    """
    request, failed = request or BackendRequest(), failed or {}
    _check_known([*fallback, backend])
    choice = _chosen(bundle, request) if backend == "auto" else Choice((backend,), "")
    known = [*failed.items(), *choice.refused.items()]
    failures: list[tuple[str, BackendError]] = [(name, BackendError(text)) for name, text in known]
    for attempt in _attempts(choice.names, request, () if strict else fallback, failed):
        if (attempt.relaxed and strict) or (attempt.backend in choice.refused and attempt.request == request):
            continue
        try:
            session = _load(bundle, attempt, strict)
        except BackendError as error:
            failures.append((attempt.backend, error))
            continue
        reason = _reason_for(attempt, backend, failures)
        return session, BackendReport(_described(backend, request), session.actual, reason, choice.reason)
    kind = BackendUnavailable if all(isinstance(e, BackendUnavailable) for _, e in failures) else BackendError
    raise kind(_told(failures) + ("; strict allows no other backend or device" if strict else ""))


def load_on(bundle: Bundle, backend: str, request: BackendRequest, trial: bool = True) -> Session:
    """Load a bundle's graph on this backend and no other. Raises BackendError, BundleError.

    trial: see `backends.trial`; False for a process that exists for this one graph.
    """
    return _load(bundle, _Attempt(backend, request, relaxed=False), strict=False, trial=trial)


def _chosen(bundle: Bundle, request: BackendRequest) -> Choice:
    """The installed backends that read the bundle, in the order of their merit here, then the others; why."""
    from edge_vision.backends.choice import choose

    names = list(known_backends())
    usable = [name for name in names if _reason(name) is None and _reads(name, bundle)]
    choice = choose(bundle, usable, request)
    return replace(choice, names=(*choice.names, *(name for name in names if name not in usable)))


def _reads(name: str, bundle: Bundle) -> bool:
    formats = make_backend(name).graph_formats
    return any(graph.format in formats for graph in bundle.manifest.graphs)


def _attempts(
    names: Sequence[str], request: BackendRequest, fallback: Sequence[str], failed: Mapping[str, str]
) -> Iterator[_Attempt]:
    # Another backend has other devices and options; threads and precision mean the same to all.
    relaxed = replace(request, device="auto", options={})
    attempts = [_Attempt(name, request, relaxed=False) for name in names]
    if relaxed != request:
        attempts += [_Attempt(name, relaxed, relaxed=True) for name in names]
    attempts += [_Attempt(name, relaxed, relaxed=True) for name in fallback if name not in names]
    yield from sorted(attempts, key=lambda attempt: attempt.backend in failed)


def _load(bundle: Bundle, attempt: _Attempt, strict: bool, trial: bool = True) -> Session:
    backend, request = make_backend(attempt.backend), attempt.request
    reason = backend.unavailable_reason()
    if reason:
        raise BackendUnavailable(reason)
    graphs = [graph for graph in bundle.manifest.graphs if graph.format in backend.graph_formats]
    if not graphs:
        raise BackendUnavailable(
            f"{backend.name} reads {', '.join(backend.graph_formats)}; bundle {bundle.manifest.name} has "
            f"{', '.join(graph.format for graph in bundle.manifest.graphs)}"
        )
    has_it = request.precision in {graph.precision for graph in graphs}
    path, graph = bundle.graph_path(backend.graph_formats, request.precision if has_it else "auto")
    if trial:
        _try(bundle, backend, path, graph, request)

    try:
        session = within(backend.load_limit_s, lambda: backend.load(path, request), _close)
    except Patience as error:
        raise BackendError(f"{backend.name}: loading hangs, {error}") from None
    session.actual = _completed(session.actual, graph.precision, request)
    if strict and request.precision not in ("auto", session.actual.precision):
        session.close()
        raise BackendUnavailable(f"{backend.name}: {session.actual.notes[-1]}")
    return session


def _try(bundle: Bundle, backend: Backend, path: Path, graph: GraphSpec, request: BackendRequest) -> None:
    from edge_vision.core.preprocess import input_shape

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


def _described(backend: str, request: BackendRequest) -> dict[str, str | int]:
    return {
        "backend": backend,
        "device": request.device,
        "precision": request.precision,
        "threads": request.threads,
    }


def _reason_for(attempt: _Attempt, backend: str, failures: list[tuple[str, BackendError]]) -> str | None:
    """Why this attempt came after others. For "auto", a backend that is not installed is no reason; what was
    asked for and failed before, but works now, is none either."""
    if not attempt.relaxed:
        failures = [(name, error) for name, error in failures if name != attempt.backend]
    if backend == "auto" and not attempt.relaxed:
        failures = [(other, error) for other, error in failures if not isinstance(error, BackendUnavailable)]
    return _told(failures) or None


def _told(failures: list[tuple[str, BackendError]]) -> str:
    # The same device may be tried twice, by its name and by "auto".
    return "; ".join(dict.fromkeys(f"{name}: {error}" for name, error in failures))


def _reason(name: str) -> str | None:
    try:
        return make_backend(name).unavailable_reason()
    except BackendError as error:
        return str(error)
