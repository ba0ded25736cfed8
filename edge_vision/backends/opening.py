"""Opens a bundle on the backend that was asked for, or on the next best one, and reports which and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from edge_vision.backends.auto_select import choose
from edge_vision.backends.base import AutoSelection, BackendActual, BackendRequest, Session
from edge_vision.backends.loading import load_on
from edge_vision.backends.registry import check_known, known_backends, make_backend, unavailable_reason
from edge_vision.bundles.store import Bundle
from edge_vision.errors import BackendError, BackendUnavailable

FALLBACK = ("onnxruntime", "openvino")
"""What is tried where the backend that was asked for does not work."""


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


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One thing to try. relaxed: it is less than, or other than, what was asked for."""

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
    """Load a bundle's graph on the backend that was asked for, or on the next best one.

    "auto" takes the fastest that agrees with the others (see `auto_select`). Where a request cannot be met,
    the device is left to the backend, then those of `fallback` are tried, and the report says why. With strict
    the request is met or BackendUnavailable is raised. failed: backends that failed while they ran, and how:
    they come last. Raises BackendError where nothing can load the graph, BundleError where the graph file is
    not the one that the bundle names.
    """
    request, failed = request or BackendRequest(), failed or {}
    check_known([*fallback, backend])
    choice = _chosen(bundle, request) if backend == "auto" else AutoSelection((backend,), "")
    known = [*failed.items(), *choice.refused.items()]
    failures: list[tuple[str, BackendError]] = [(name, BackendError(text)) for name, text in known]
    for attempt in _attempts(choice.names, request, () if strict else fallback, failed):
        if (attempt.relaxed and strict) or (attempt.backend in choice.refused and attempt.request == request):
            continue
        try:
            session = load_on(bundle, attempt.backend, attempt.request, strict)
        except BackendError as error:
            failures.append((attempt.backend, error))
            continue
        reason = _reason_for(attempt, backend, failures)
        return session, BackendReport(_described(backend, request), session.actual, reason, choice.reason)
    kind = BackendUnavailable if all(isinstance(e, BackendUnavailable) for _, e in failures) else BackendError
    raise kind(_told(failures) + ("; strict allows no other backend or device" if strict else ""))


def _chosen(bundle: Bundle, request: BackendRequest) -> AutoSelection:
    """The installed backends that read the bundle, in the order of their merit here, then the others; why."""
    names = list(known_backends())
    usable = [name for name in names if unavailable_reason(name) is None and _reads(name, bundle)]
    choice = choose(bundle, usable, request)
    return replace(choice, names=(*choice.names, *(name for name in names if name not in usable)))


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
