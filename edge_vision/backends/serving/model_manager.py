"""Keeps a model serving: the requested one, the next best while that fails, another one once it is loaded.

One worker runs the model. If a run fails, the next best model is loaded in the worker's own thread, so that
the frame is not lost; a run that hangs is abandoned. A swap, and the return to the requested backend, are
prepared in the background and happen between two frames.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from edge_vision.backends.base import Session
from edge_vision.backends.registry import make_backend
from edge_vision.backends.serving.failure_history import FailureHistory, HungRuns
from edge_vision.backends.serving.loaded_model import LoadedModel, ModelRequest, load_model
from edge_vision.bundles.store import Bundle
from edge_vision.core.concurrency.lease import Lease
from edge_vision.core.concurrency.worker import Worker, WorkerClient
from edge_vision.errors import BackendError, EdgeVisionError

R = TypeVar("R")


class ModelManager(Generic[R]):
    """The worker calls `acquire`, `release` and `report_failure`; any thread may call the other methods.

    make: see `load_model`. log: takes severity, event and one sentence. on_model: called with each model that
    begins to serve, by the thread that loaded it.
    """

    def __init__(
        self,
        make: Callable[[Bundle, Session], R],
        log: Callable[[str, str, str], None],
        on_model: Callable[[LoadedModel[R]], None],
    ) -> None:
        self._make, self._log, self._on_model = make, log, on_model
        self._lease: Lease[LoadedModel[R], Any] = Lease(LoadedModel.close)
        self._loader: WorkerClient[ModelRequest] | None = None
        self._request: ModelRequest | None = None
        self._pending: ModelRequest | None = None
        self._last: LoadedModel[R] | None = None
        self._failures, self._hung = FailureHistory(), HungRuns()
        # A run may return while it is revoked.
        self._revoking = threading.Lock()
        self._retrying = self._taking_over = False
        self.swap_error = ""

    @property
    def model(self) -> LoadedModel[R] | None:
        """The model that serves."""
        return self._lease.current

    @property
    def request(self) -> ModelRequest | None:
        """What should serve."""
        return self._request

    @property
    def swapping(self) -> bool:
        """Whether another model is being loaded."""
        return self._pending is not None

    def start(self, request: ModelRequest) -> LoadedModel[R]:
        """Load the requested model, or the next best; a server that does not answer is tried again later.

        Raises BundleError, BackendError, HeadError.
        """
        model = load_model(request, self._make)
        self._request, self._pending, self.swap_error = request, None, ""
        self._failures = FailureHistory()
        on_server = request.backend != "auto" and make_backend(request.backend).remote
        if on_server and request.request.remote_url and model.report.actual.backend != request.backend:
            # A server may answer later; a local backend that does not load now does not load later.
            reason = (model.report.fallback_reason or "").removeprefix(f"{request.backend}: ")
            self._failures.record(request.backend, reason)
        self._serve(model)
        loader = Worker[ModelRequest]("edge_vision loader").join(
            lambda wanted: self._load_in_background(wanted, lambda: self._loader is loader)
        )
        self._loader = loader
        return model

    def stop(self) -> None:
        """Close the model; one that hangs in a run is closed when the run ends."""
        loader, self._loader = self._loader, None
        if loader:
            loader.stop(0.0)
        self._request = self._pending = self._last = None
        self._lease.revoke(0.0)
        self._lease.replace(None)

    def acquire(self, job: Any) -> LoadedModel[R]:
        """Begin a run. Loads the next best model if none serves. Raises BackendError if none works.

        A run that has not ended was abandoned with its worker, and may still use the session.
        """
        self._abandon(0.0, "a run was abandoned")
        model = self._lease.acquire(job)
        if model is None:
            if not self._failures.retry_due:
                raise BackendError(self._failures.no_backend_works)
            self._load_next()
            model = self._lease.acquire(job)
        if model is None:
            raise BackendError("no model is loaded")
        return model

    def release(self, model: LoadedModel[R]) -> bool:
        """End a run. False if it was revoked meanwhile: its job belongs to another worker."""
        with self._revoking:
            mine = self._lease.release(model)
            late_s = None if mine else self._hung.end(id(model))
        if late_s is not None:
            text = f"{model.report.actual.backend}: the run that hung has ended after {late_s:.1f} s"
            self._log("info", "backend_failed", text)
        return mine

    def report_failure(self, model: LoadedModel[R], reason: str) -> None:
        """A run failed: serve the next best model.

        Raises BackendError if no other works; the failed model goes on serving and is reloaded at intervals.
        """
        if self._lease.current is model and not self._record_failure(model, reason):
            raise BackendError(f"{reason}; {self._failures.no_backend_works}")
        if self._lease.current is model:
            self._load_next()

    def revoke(self, after_s: float, matches: Callable[[Any], bool] = lambda job: True) -> Any:
        """Abandon a run that takes longer than this, if `matches` is true for its job. Returns the job, None
        if no run takes that long."""
        after_s = self._hung.limit_s(after_s)
        return self._abandon(after_s, f"a run did not end within {after_s * 1e3:.0f} ms", matches)

    def _abandon(self, after_s: float, reason: str, matches: Callable[[Any], bool] = lambda job: True) -> Any:
        with self._revoking:
            revoked = self._lease.revoke(after_s, matches)
            if revoked is None:
                return None
            model, job = revoked
            self._hung.add(id(model), after_s)
        self._record_failure(model, reason)
        self._failures.retry_now()
        return job

    def swap(self, request: ModelRequest) -> None:
        """Load and check another model in the background, then serve it.

        If that fails, the current one goes on, and `swap_error` says why. A request for the current one
        clears `swap_error`.
        """
        if self._pending is None and request == self._request:
            self.swap_error = ""
        if self._loader and request != (self._pending or self._request):
            self._pending = request
            self._loader.put(request)

    def retry_if_due(self) -> None:
        """Load the requested model again in the background if its backend failed and the back-off is over."""
        request, loader = self._request, self._loader
        # While another backend takes over, a return would be replaced by the one that is still loading.
        idle = self._pending is None and not (self._retrying or self._taking_over or self._hung)
        if request and loader and idle and self._failures.reasons and self._failures.retry_due:
            self._retrying = True
            loader.put(request)

    def status_values(self) -> dict[str, Any]:
        """The model that serves, failed backends, and the state of a swap."""
        model = self._lease.current or self._last
        return {
            **(model.status_values() if model else {"model": None}),
            "backend.failed": str(self._failures),
            "swap.loading": self.swapping,
            "swap.error": self.swap_error,
        }

    def _serve(self, model: LoadedModel[R]) -> None:
        self._failures.serving_began()
        self._last = model
        self._lease.replace(model)
        self._on_model(model)

    def _record_failure(self, model: LoadedModel[R], reason: str) -> bool:
        name = model.report.actual.backend
        recorded = self._failures.record(name, reason)
        if recorded:
            self._log("error", "backend_failed", f"{name} failed: {reason}")
        return recorded

    def _load_next(self) -> None:
        """Serve the next best model. Raises BackendError if none works."""
        self._taking_over = True
        try:
            self._take_over()
        finally:
            self._taking_over = False

    def _take_over(self) -> None:
        request = self._request
        if request is None:
            raise BackendError("no model is loaded")
        try:
            model = load_model(request, self._make, self._failures.reasons)
        except EdgeVisionError as error:
            self._failures.schedule_retry()
            raise BackendError(f"no backend works: {error}") from None
        if request is not self._request:  # Swapped or stopped meanwhile.
            model.session.close()
            return
        self._failures.schedule_retry()
        # A reloaded backend may work again: then there is nothing to return to.
        reloaded = self._failures.forget(model.report.actual.backend)
        self._serve(model)
        self._log("warning", "fallback", f"serving {model}, {'loaded again' if reloaded else 'instead'}")

    def _load_in_background(self, request: ModelRequest, is_current: Callable[[], bool]) -> None:
        """A swap, or another attempt at the requested model. is_current: False after `stop`."""
        retry = request == self._request
        try:
            model = load_model(request, self._make, check=not retry)
        except Exception as error:  # A model file and a driver may raise anything; the current model goes on.
            if is_current():
                self._report_not_loaded(request, str(error), retry)
            return
        if retry and self._last and model.report.fallback_reason:
            model.session.close()
            self._report_not_loaded(request, model.report.fallback_reason, retry)
        elif not is_current():
            model.session.close()
        else:
            self._request, self.swap_error = request, ""
            self._failures.clear()
            self._serve(model)
            self._finish(request)
            event, text = ("backend_back", "back on") if retry else ("model_swapped", "now serving")
            self._log("info", event, f"{text} {model}")

    def _report_not_loaded(self, request: ModelRequest, error: str, retry: bool) -> None:
        if retry:
            self._failures.schedule_retry(longer=True)
            backoff_s = self._failures.backoff_s
            self._log("warning", "fallback", f"still not working: {error}; retry in {backoff_s:.0f} s")
        else:
            self.swap_error = f"{request.model} on {request.backend} refused: {error}"
            self._log("error", "model_refused", f"{self.swap_error}; {self._last} goes on")
        self._finish(request)

    def _finish(self, request: ModelRequest) -> None:
        self._retrying = False
        if self._pending == request:
            self._pending = None
