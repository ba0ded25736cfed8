"""A bundle loaded on a backend, warmed up, with the object that uses it."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from edge_vision.backends.base import BackendRequest, Session
from edge_vision.backends.selection.auto_select import check_agreement
from edge_vision.backends.selection.fallback import FALLBACK, BackendReport, open_session
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.core.concurrency.timeout import WorkTimeout, run_with_timeout
from edge_vision.errors import BackendError

R = TypeVar("R")

WARM_UP_LIMIT_S = 60.0
"""The first runs allocate memory and choose kernels; beyond this they are considered hung."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """Which bundle to run on which backend. fallback: backends to try in this order if that one fails."""

    model: str
    backend: str = "auto"
    request: BackendRequest = field(default_factory=BackendRequest)
    strict: bool = False
    fallback: tuple[str, ...] = FALLBACK


class WarmUpTimeout(BackendError):
    """The first runs of a session did not end in time and were abandoned."""


class LoadedModel(Generic[R]):
    """A bundle on a backend. runner: what uses it, a detector or a classifier."""

    def __init__(self, bundle: Bundle, session: Session, report: BackendReport, runner: R) -> None:
        self.bundle = bundle
        self.session = session
        self.report = report
        self.runner = runner

    def __str__(self) -> str:
        actual = self.report.actual
        return (
            f"{self.bundle} on {actual.backend} {actual.version}, {actual.device} ({actual.provider}), "
            f"{actual.precision}, {actual.threads or 'an unreported number of'} threads"
        )

    def close(self) -> None:
        """Close the session and return its memory to the system."""
        self.session.close()
        trim_heap()

    def status_values(self) -> dict[str, Any]:
        """What was requested and what runs."""
        actual = self.report.actual
        return {
            "model": f"{self.bundle.manifest.name} {self.bundle.manifest.version}",
            "model_sha256": self.bundle.sha256,
            **{f"backend.requested.{key}": value for key, value in self.report.requested.items()},
            "backend.actual.backend": f"{actual.backend} {actual.version}",
            "backend.actual.device": actual.device,
            "backend.actual.provider": actual.provider,
            "backend.actual.precision": actual.precision,
            "backend.actual.threads": actual.threads or None,
            "backend.notes": "; ".join(actual.notes),
            "backend.selection_reason": self.report.selection_reason,
            "backend.fallback_reason": self.report.fallback_reason or "",
            **self.session.status_values(),
        }


def load_model(
    wanted: ModelRequest,
    make: Callable[[Bundle, Session], R],
    failed: Mapping[str, str] | None = None,
    check: bool = False,
) -> LoadedModel[R]:
    """Load a bundle, then make and warm up its runner. Skips a backend that loads a graph but cannot run it.

    make: returns the warmed-up runner of a session. failed: backends that failed while they ran, and how.
    check: also compare the outputs with the reference's, which takes a second or two the first time.
    Raises BundleError, BackendError, HeadError.
    """
    bundle = load_bundle(wanted.model)
    known, tried = dict(failed or {}), set[str]()
    while True:
        session, report = open_session(
            bundle, wanted.backend, wanted.request, wanted.strict, wanted.fallback, known
        )
        name = report.actual.backend
        try:
            runner = _warmed_up(make, bundle, session)
            if check and wanted.backend != "auto":
                check_agreement(bundle, name, wanted.request)
            trim_heap()
            return LoadedModel(bundle, session, report, runner)
        except BackendError as error:
            if not isinstance(error, WarmUpTimeout):  # A hung session is closed when its run ends.
                session.close()
            if wanted.strict or name in tried:
                raise _with_reason(error, report.fallback_reason) from None
            tried.add(name)
            known[name] = str(error)
        except BaseException:
            session.close()
            raise


def _with_reason(error: BackendError, fallback_reason: str | None) -> BackendError:
    """The error of a fallback, after the failure of the requested backend."""
    return type(error)(f"{fallback_reason}; {error}") if fallback_reason else error


def _warmed_up(make: Callable[[Bundle, Session], R], bundle: Bundle, session: Session) -> R:
    try:
        return run_with_timeout(WARM_UP_LIMIT_S, lambda: make(bundle, session), lambda _: session.close())
    except WorkTimeout as error:
        raise WarmUpTimeout(f"the first run hangs, {error}") from None


def trim_heap() -> None:
    """Call glibc's `malloc_trim`; no effect elsewhere. Takes some ms.

    After a model is loaded or closed, glibc retains half of its size again, and more with each model.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
