"""A model that keeps serving: the one that was asked for, the next best while that one fails, another one
once that is loaded and checked.

One worker uses the model. What fails in its hands is replaced at once, in the worker's own thread, so that
the frame which it failed on is not lost; what hangs is left to itself. A swap, and the return to what was
asked for, are prepared in the background, and happen between two frames.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from edge_vision.backends import FALLBACK, BackendReport, BackendRequest, Session, open_session
from edge_vision.backends.auto_select import check_agreement
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.core.concurrency.lease import Lease
from edge_vision.core.concurrency.timeout import WorkTimeout, run_with_timeout
from edge_vision.core.concurrency.worker import Worker
from edge_vision.core.malloc_trim import trim_heap
from edge_vision.core.running_clock import running_s
from edge_vision.errors import BackendError, EdgeVisionError

R = TypeVar("R")

# First runs allocate memory and choose kernels; longer than this they hang.
WARM_UP_LIMIT_S = 60.0
FIRST_RETRY_S, LAST_RETRY_S = 5.0, 300.0
# A backend that ran for so long before it failed again starts with the first retry.
SOUND_S = 60.0
# For how long one is patient after a run that seemed to hang and came back.
LATE_MEMORY_S = 600.0


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What should run. fallback: backends to try in turn where that one does not work."""

    model: str
    backend: str = "auto"
    request: BackendRequest = field(default_factory=BackendRequest)
    strict: bool = False
    fallback: tuple[str, ...] = FALLBACK


class WarmUpTimeout(BackendError):
    """The first runs of a session did not end in time; they were left to themselves."""


class LoadedModel(Generic[R]):
    """A bundle on a backend, and what uses it: a detector, a classifier."""

    def __init__(self, bundle: Bundle, session: Session, report: BackendReport, runner: R) -> None:
        self.bundle = bundle
        self.session = session
        self.report = report
        self.runner = runner

    def __str__(self) -> str:
        actual = self.report.actual
        return (
            f"{self.bundle} on {actual.backend} {actual.version}, {actual.device} ({actual.provider}), "
            f"{actual.precision}, {actual.threads or 'untold'} threads"
        )

    def status_values(self) -> dict[str, Any]:
        """Requested and actual, side by side."""
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
        }


def load_model(
    wish: ModelRequest,
    make: Callable[[Bundle, Session], R],
    failed: Mapping[str, str] | None = None,
    check: bool = False,
) -> LoadedModel[R]:
    """Load a bundle, and make and warm up what uses it. A backend that loads but cannot run is passed over.

    make: gives what uses the session, warmed up. failed: backends that failed while they ran, and how.
    check: also that the backend computes what the reference does, which takes a second or two the first time.
    Raises BundleError, BackendError, HeadError.
    """
    bundle = load_bundle(wish.model)
    known, tried = dict(failed or {}), set[str]()
    while True:
        session, report = open_session(bundle, wish.backend, wish.request, wish.strict, wish.fallback, known)
        name = report.actual.backend
        try:
            runner = _warmed(make, bundle, session)
            if check and wish.backend != "auto":
                check_agreement(bundle, name, wish.request)
            trim_heap()
            return LoadedModel(bundle, session, report, runner)
        except BackendError as error:
            if not isinstance(error, WarmUpTimeout):  # What hangs is closed when it ends.
                session.close()
            if wish.strict or name in tried:
                raise _with_reason(error, report.fallback_reason) from None
            tried.add(name)
            known[name] = str(error)
        except BaseException:
            session.close()
            raise


def _with_reason(error: BackendError, fallback_reason: str | None) -> BackendError:
    """The error of a fallback, after what the backend that was asked for failed with."""
    return type(error)(f"{fallback_reason}; {error}") if fallback_reason else error


def _warmed(make: Callable[[Bundle, Session], R], bundle: Bundle, session: Session) -> R:
    try:
        return run_with_timeout(WARM_UP_LIMIT_S, lambda: make(bundle, session), lambda _: session.close())
    except WorkTimeout as error:
        raise WarmUpTimeout(f"the first run hangs, {error}") from None


class ModelManager(Generic[R]):
    """Keeps a model serving. `use`, `done` and `failed` are the worker's; the others any thread's.

    make: see `load_model`. tell: severity, event and one sentence, for the log. changed: another model serves
    from now on; called by whichever thread made it so.
    """

    def __init__(
        self,
        make: Callable[[Bundle, Session], R],
        tell: Callable[[str, str, str], None],
        changed: Callable[[LoadedModel[R]], None],
    ) -> None:
        self._make, self._tell, self._changed = make, tell, changed
        self._lease: Lease[LoadedModel[R], Any] = Lease(_close)
        self._loader: Worker[ModelRequest] | None = None
        # What should serve, and what is to be loaded in its place.
        self._wish: ModelRequest | None = None
        self._target: ModelRequest | None = None
        self._last: LoadedModel[R] | None = None
        self._failed: dict[str, str] = {}
        self._failed_s: dict[str, float] = {}
        self._hanging: dict[int, float] = {}
        # A run may come back while it is given up.
        self._giving_up = threading.Lock()
        self._late_s, self._late_until_s = 0.0, 0.0
        self._retry_s, self._backoff_s, self._serving_s = 0.0, FIRST_RETRY_S, 0.0
        self._retrying = False
        self.swap_error = ""
        self.refused: ModelRequest | None = None

    @property
    def model(self) -> LoadedModel[R] | None:
        """What serves."""
        return self._lease.current

    @property
    def wish(self) -> ModelRequest | None:
        """What should serve."""
        return self._wish

    def start(self, wish: ModelRequest) -> LoadedModel[R]:
        """Load what is wished, or the next best. Raises BundleError, BackendError, HeadError."""
        model = load_model(wish, self._make)
        self._wish, self._target, self.swap_error = wish, None, ""
        self._failed, self._failed_s, self._backoff_s = {}, {}, FIRST_RETRY_S
        self._serve(model)
        loader: Worker[ModelRequest] = Worker(
            "edge_vision loader", lambda wish: self._load_aside(wish, lambda: self._loader is loader)
        )
        self._loader = loader
        return model

    def stop(self) -> None:
        """Close what serves; what hangs in a use is closed when that ends, and its job is nobody's."""
        loader, self._loader = self._loader, None
        if loader:
            loader.stop(0.0)
        self._wish = self._target = self._last = None
        self._lease.revoke(0.0)
        self._lease.replace(None)

    # The worker's.
    def use(self, job: Any) -> LoadedModel[R]:
        """Begin a use; where nothing serves, load the next best. Raises BackendError where nothing works."""
        model = self._lease.acquire(job)
        if model is None:
            if time.monotonic() < self._retry_s:
                raise BackendError(self._nothing_works())
            self._load_next()
            model = self._lease.acquire(job)
        if model is None:
            raise BackendError("no model is loaded")
        return model

    def done(self, model: LoadedModel[R]) -> bool:
        """End a use. False where it was given up meanwhile: the job is somebody else's."""
        with self._giving_up:
            mine = self._lease.release(model)
            begun_s = None if mine else self._hanging.pop(id(model), None)
        if begun_s is not None:
            now_s, name = running_s(), model.report.actual.backend
            self._late_s, self._late_until_s = now_s - begun_s, now_s + LATE_MEMORY_S
            text = f"{name}: the run that hung has ended after {self._late_s:.1f} s"
            self._tell("info", "backend_failed", text)
        return mine

    def failed(self, model: LoadedModel[R], reason: str) -> None:
        """What was used has failed: have the next best serve. Raises BackendError where nothing else works;
        what failed then goes on serving, and is loaded anew at times."""
        if self._lease.current is model and not self._note(model, reason):
            raise BackendError(f"{reason}; {self._nothing_works()}")
        if self._lease.current is model:
            self._load_next()

    # Others'.
    def give_up(self, after_s: float) -> Any:
        """Leave a use that lasts longer than this to itself. Returns its job, or None where there is none.

        A run that came back late was no hang: on a machine so busy, others may take twice as long as it did.
        """
        now_s = running_s()
        if now_s < self._late_until_s:
            after_s = max(after_s, 2.0 * self._late_s)
        with self._giving_up:
            left = self._lease.revoke(after_s)
            if left is None:
                return None
            model, job = left
            self._hanging[id(model)] = now_s - after_s
        self._note(model, f"a run did not end within {after_s * 1e3:.0f} ms")
        self._retry_s = 0.0  # Nothing serves: the next best at once.
        return job

    def change(self, wish: ModelRequest) -> None:
        """Load and check something else in the background, and serve it then. Where that fails, what serves
        goes on, `swap_error` says why, and `refused` is the wish. What serves already clears `swap_error`."""
        if self._target is None and wish == self._wish:
            self.swap_error = ""
        if self._loader and wish != (self._target or self._wish):
            self._target = wish
            self._loader.put(wish)

    def poll(self) -> None:
        """Try what failed again, where it is time. Call it now and then."""
        wish, loader = self._wish, self._loader
        idle = self._target is None and not self._retrying and not self._hanging
        if wish and loader and idle and self._failed and time.monotonic() >= self._retry_s:
            self._retrying = True
            loader.put(wish)

    def status_values(self) -> dict[str, Any]:
        """What serves, and what becomes of what does not."""
        model = self._lease.current or self._last
        return {
            **(model.status_values() if model else {"model": None}),
            "backend.failed": "; ".join(f"{name}: {why}" for name, why in list(self._failed.items())),
            "swap.loading": self._target is not None,
            "swap.error": self.swap_error,
        }

    # How.
    def _serve(self, model: LoadedModel[R]) -> None:
        self._serving_s = time.monotonic()
        self._last = model
        self._lease.replace(model)
        self._changed(model)

    def _note(self, model: LoadedModel[R], reason: str) -> bool:
        """Write a failure down. False where this backend failed so lately that loading it, or another one
        that failed too, would be in vain."""
        now_s, name = time.monotonic(), model.report.actual.backend
        lately = name in self._failed_s and now_s - self._failed_s[name] < self._backoff_s
        if lately:
            return False
        again = name in self._failed_s and now_s - self._serving_s < SOUND_S
        self._backoff_s = min(LAST_RETRY_S, 2.0 * self._backoff_s) if again else FIRST_RETRY_S
        self._failed = {**self._failed, name: reason}
        self._failed_s[name] = now_s
        self._tell("error", "backend_failed", f"{name} failed: {reason}")
        return True

    def _nothing_works(self) -> str:
        wait_s = max(0.0, self._retry_s - time.monotonic())
        return f"no other backend works, the next attempt is in {wait_s:.0f} s"

    def _load_next(self) -> None:
        """Serve the next best. Raises BackendError where nothing works."""
        wish = self._wish
        if wish is None:
            raise BackendError("no model is loaded")
        try:
            model = load_model(wish, self._make, self._failed)
        except EdgeVisionError as error:
            self._retry_s = time.monotonic() + self._backoff_s
            raise BackendError(f"no backend works: {error}") from None
        if wish is not self._wish:  # Swapped meanwhile, or stopped.
            model.session.close()
            return
        self._retry_s = time.monotonic() + self._backoff_s
        name = model.report.actual.backend
        again = name in self._failed
        # Loaded anew it may be sound: then there is nothing to go back to.
        self._failed = {other: why for other, why in self._failed.items() if other != name}
        self._serve(model)
        self._tell("warning", "fallback", f"serving {model}, {'loaded anew' if again else 'instead'}")

    def _load_aside(self, wish: ModelRequest, wanted: Callable[[], bool]) -> None:
        """The loader's work: a swap, or what was asked for once more."""
        again = wish == self._wish
        try:
            model = load_model(wish, self._make, check=not again)
        except Exception as error:  # A model file and a driver may raise anything; what serves goes on.
            if wanted():
                self._not_loaded(wish, str(error), again)
            return
        last = self._last
        if again and last and model.report.fallback_reason:
            model.session.close()
            self._not_loaded(wish, model.report.fallback_reason, again)
        elif not wanted():  # Stopped meanwhile.
            model.session.close()
        else:
            self._wish, self._failed, self.swap_error = wish, {}, ""
            self._serve(model)
            self._settle_target(wish)
            event, text = ("backend_back", "back on") if again else ("model_swapped", "now serving")
            self._tell("info", event, f"{text} {model}")

    def _settle_target(self, wish: ModelRequest) -> None:
        self._retrying = False
        if self._target == wish:
            self._target = None

    def _not_loaded(self, wish: ModelRequest, error: str, again: bool) -> None:
        if again:
            self._backoff_s = min(LAST_RETRY_S, 2.0 * self._backoff_s)
            self._retry_s = time.monotonic() + self._backoff_s
            self._tell("warning", "fallback", f"still not working: {error}; retry in {self._backoff_s:.0f} s")
        else:
            self.swap_error = f"{wish.model} on {wish.backend} refused: {error}"
            self._tell("error", "model_refused", f"{self.swap_error}; {self._last} goes on")
            self.refused = wish
        self._settle_target(wish)


def _close(model: LoadedModel[Any]) -> None:
    model.session.close()
    trim_heap()
