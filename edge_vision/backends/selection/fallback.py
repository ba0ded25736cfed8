"""Opens a bundle on the requested backend or on the next best one, and reports which one and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from edge_vision.backends.base import AutoSelection, BackendActual, BackendRequest, Session
from edge_vision.backends.loading import load_on
from edge_vision.backends.registry import check_known, known_backends, make_backend, unavailable_reason
from edge_vision.backends.selection.auto_select import choose
from edge_vision.bundles.store import Bundle
from edge_vision.errors import BackendError, BackendUnavailable

FALLBACK = ("onnxruntime", "openvino")
"""Tried in this order if the requested backend does not work."""


@dataclass(frozen=True, slots=True)
class BackendReport:
    """What was requested, what runs, and why they differ.

    requested: backend, device, precision, threads. fallback_reason: None if the request was met.
    selection_reason: why "auto" selected this backend, "" if the request named one.
    """

    requested: dict[str, str | int]
    actual: BackendActual
    fallback_reason: str | None = None
    selection_reason: str = ""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One backend with one request. relaxed: this differs from what was requested."""

    backend: str
    request: BackendRequest
    relaxed: bool


def open_session(
    bundle: Bundle,
    backend: str = "auto",
    request: BackendRequest | None = None,
    strict: bool = False,
    fallback: Sequence[str] = FALLBACK,
    failed: Mapping[str, str] | None = None,
) -> tuple[Session, BackendReport]:
    """Load a bundle's graph on the requested backend, or on the next best one.

    "auto" selects the fastest that agrees with the reference (see `auto_select`). If the request cannot be
    met, the backend chooses the device, then those of `fallback` are tried. strict: meet the request or raise
    BackendUnavailable. failed: backends that failed while they ran, and how; they are tried last. Raises
    BackendError if no backend loads the graph, BundleError if the graph file does not match the manifest.
    """
    request, failed = request or BackendRequest(), failed or {}
    check_known([*fallback, backend])
    selection = _auto_selection(bundle, request) if backend == "auto" else AutoSelection((backend,), "")
    known = [*failed.items(), *selection.refused.items()]
    failures: list[tuple[str, BackendError]] = [(name, BackendError(text)) for name, text in known]
    for attempt in _attempts(selection.names, request, () if strict else fallback, failed):
        if (attempt.relaxed and strict) or (
            attempt.backend in selection.refused and attempt.request == request
        ):
            continue
        try:
            session = load_on(bundle, attempt.backend, attempt.request, strict)
        except BackendError as error:
            failures.append((attempt.backend, error))
            continue
        reason = _reason_for(attempt, backend, failures)
        return session, BackendReport(_as_dict(backend, request), session.actual, reason, selection.reason)
    kind = BackendUnavailable if all(isinstance(e, BackendUnavailable) for _, e in failures) else BackendError
    raise kind(_joined(failures) + ("; strict allows no other backend or device" if strict else ""))


def _auto_selection(bundle: Bundle, request: BackendRequest) -> AutoSelection:
    """The installed backends that read the bundle, the best first, then the other backends."""
    usable = usable_backends(bundle)
    selection = choose(bundle, usable, request)
    others = (name for name in known_backends() if name not in usable)
    return replace(selection, names=(*selection.names, *others))


def usable_backends(bundle: Bundle) -> list[str]:
    """The backends that can run here and read a graph of the bundle, in the order of preference."""
    return [name for name in known_backends() if unavailable_reason(name) is None and _reads(name, bundle)]


def _reads(name: str, bundle: Bundle) -> bool:
    formats = make_backend(name).formats
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


def _as_dict(backend: str, request: BackendRequest) -> dict[str, str | int]:
    return {
        "backend": backend,
        "device": request.device,
        "precision": request.precision,
        "threads": request.threads,
    }


def _reason_for(attempt: _Attempt, backend: str, failures: list[tuple[str, BackendError]]) -> str | None:
    """Why this attempt came after others, None if the request was met.

    For "auto", a backend that is not installed is no reason; nor is an earlier failure of the same backend.
    """
    if not attempt.relaxed:
        failures = [(name, error) for name, error in failures if name != attempt.backend]
    if backend == "auto" and not attempt.relaxed:
        failures = [(other, error) for other, error in failures if not isinstance(error, BackendUnavailable)]
    return _joined(failures) or None


def _joined(failures: list[tuple[str, BackendError]]) -> str:
    # The same device may be tried twice, by its name and by "auto".
    return "; ".join(dict.fromkeys(f"{name}: {error}" for name, error in failures))
