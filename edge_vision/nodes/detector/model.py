"""The detector node's model: loaded, watched and replaced as its parameters request, shared in a process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rclpy.parameter import Parameter

from edge_vision.backends import Session
from edge_vision.backends.serving.loaded_model import LoadedModel, ModelRequest
from edge_vision.backends.serving.model_manager import ModelManager
from edge_vision.bundles import Bundle
from edge_vision.core.concurrency.worker import Worker
from edge_vision.core.running_clock import running_s
from edge_vision.detect.delay_promise import CameraNeed
from edge_vision.detect.detector import Detector
from edge_vision.errors import BackendError, HeadError
from edge_vision.nodes.base_node import BaseNode
from edge_vision.nodes.model_loading import (
    check_model_params,
    log_loaded_model,
    model_request,
    request_parameters,
)

R = TypeVar("R")
WATCH_PERIOD_S = 0.2
"""Period of the checks for a hanging inference, a due retry, and parameters that do not match the model."""
MAX_ATTEMPTS = 3
"""Number of backends that may fail on one frame."""


class DetectorModel:
    """The model of one detector node, which it may share with the detectors of other cameras.

    prepare: called with the node's own view of a model before it is used. on_change: called with a model that
    has taken over. Any thread calls both. on_hang: called with the work item of an abandoned inference.
    time_limit_s: gives the duration above which an inference is abandoned, 0 = none.
    """

    def __init__(
        self,
        node: BaseNode,
        prepare: Callable[[LoadedModel[Detector]], None],
        on_change: Callable[[LoadedModel[Detector]], None],
        on_hang: Callable[[Any], None],
        time_limit_s: Callable[[], float],
    ) -> None:
        self._node, self._on_hang, self._time_limit_s = node, on_hang, time_limit_s
        self._prepare, self._on_change = prepare, on_change
        self._process = node.hub.shared(SharedDetector)
        self._shared = SharedModel()
        # The shared model, and this node's view of it with thresholds and buffers of its own.
        self._view_lock = threading.Lock()
        self._views: tuple[LoadedModel[Detector], LoadedModel[Detector]] | None = None
        self._following = False
        self._timer: Any = None

    @property
    def manager(self) -> ModelManager[Detector]:
        """The manager of the shared model; one without a model before `start`."""
        return self._shared.manager

    @property
    def current(self) -> LoadedModel[Detector] | None:
        """The model in use."""
        model = self.manager.model
        return self._view_of(model) if model else None

    def start(self) -> None:
        """Load the requested model, unless another detector uses it. Raises BundleError, BackendError,
        HeadError."""
        self._shared = self._process.join(self, model_request(self._node))
        if model := self.current:
            log_loaded_model(self._node, model)
        self._timer = self._node.create_timer(WATCH_PERIOD_S, self._watch, clock=self._node.steady_clock)

    def stop(self) -> None:
        """Close the model if no other detector uses it."""
        if self._timer:
            self._node.destroy_timer(self._timer)
            self._timer = None
        shared, self._shared, self._views = self._shared, SharedModel(), None
        self._process.leave(self, shared)

    def on_model(self, model: LoadedModel[Detector]) -> None:
        """The shared model has been replaced by this one. Any thread calls it."""
        self._on_change(self._view_of(model))

    def log(self, severity: str, event: str, text: str) -> None:
        self._node.structured_log.event(event, text, severity, **self.manager.status_values())

    def _view_of(self, model: LoadedModel[Detector]) -> LoadedModel[Detector]:
        with self._view_lock:
            if self._views is None or self._views[0] is not model:
                view = LoadedModel(model.bundle, model.session, model.report, model.runner.twin())
                self._prepare(view)
                self._views = model, view
            return self._views[1]

    def _hangs(self, job: tuple[DetectorModel, Any, list[Detector]], limit_s: float) -> bool:
        """Whether the backend takes this long for a job of this node. Decoding its outputs does not count."""
        return job[0] is self and any(running_s() - one.run_began_s >= limit_s for one in job[2])

    def run(self, item: Any, use: Callable[[Detector], R]) -> tuple[LoadedModel[Detector], R] | None:
        """Use the model on a work item; the next best one if it fails.

        Returns the model and the result, or None if the item was given to another thread meanwhile. Raises
        BackendError or HeadError if the backends fail.
        """
        failed: set[int] = set()
        while True:
            used: list[Detector] = []
            model = self.manager.acquire((self, item, used))
            view = self._view_of(model)
            used.append(view.runner)
            try:
                result = use(view.runner)
            except (BackendError, HeadError) as error:
                if not self.manager.release(model):
                    return None
                self.manager.report_failure(model, str(error))
                if id(model) in failed or len(failed) >= MAX_ATTEMPTS:
                    raise
                failed.add(id(model))
            except BaseException:
                if not self.manager.release(model):
                    return None
                raise
            else:
                return (view, result) if self.manager.release(model) else None

    # Parameters.
    def check_params(self, values: Mapping[str, Any], changed: set[str]) -> None:
        if not self._following:
            check_model_params(values, changed)

    def request_change(self) -> None:
        """Load what the parameters request, in the background, for all detectors that share the model."""
        if not self._following:
            self.manager.swap(model_request(self._node))

    def _watch(self) -> None:
        """Abandon a hanging inference, retry failed backends, let the parameters follow the model."""
        self.manager.retry_if_due()
        limit_s = self._time_limit_s()
        if limit_s and (model := self.manager.model):
            model.session.deadline_s = 0.9 * limit_s  # Before the watchdog, which leaves a thread behind.
        if limit_s and (job := self.manager.revoke(limit_s, lambda job: self._hangs(job, limit_s))):
            self._on_hang(job[1])
        request = self.manager.request
        if request and not self.manager.swapping and request != model_request(self._node):
            self._follow(request)

    def _follow(self, request: ModelRequest) -> None:
        """Set the parameters to the model in use, after a refusal, or a change by another detector. A refusal
        stays in the status until the user sets one."""
        values = request_parameters(request)
        changed = [name for name in values if values[name] != self._node.params[name]]
        self._following = True
        try:
            self._node.set_parameters_atomically([Parameter(name, value=values[name]) for name in changed])
        finally:
            self._following = False


class SharedModel:
    """One model in memory and the detectors that use it. The first of them logs its events."""

    def __init__(self) -> None:
        self.users: tuple[DetectorModel, ...] = ()
        self.manager: ModelManager[Detector] = ModelManager(warm_detector, self._log, self._on_model)

    def _log(self, severity: str, event: str, text: str) -> None:
        for user in self.users[:1]:
            user.log(severity, event, text)

    def _on_model(self, model: LoadedModel[Detector]) -> None:
        for user in self.users:
            user.on_model(model)


class SharedDetector:
    """One per process. The executor calls `join` and `leave`."""

    def __init__(self) -> None:
        self.worker: Worker[Any] = Worker("edge_vision detector")
        self.needs: dict[str, CameraNeed] = {}
        """By namespace, of the cameras that send frames."""
        self._models: list[SharedModel] = []

    def join(self, user: DetectorModel, request: ModelRequest) -> SharedModel:
        """Use the model of this request, which is loaded unless another detector already uses it.

        Raises BundleError, BackendError, HeadError.
        """
        for shared in self._models:
            if shared.manager.request == request:
                shared.users = (*shared.users, user)
                if model := shared.manager.model:
                    user.on_model(model)
                return shared
        shared = SharedModel()
        shared.users = (user,)
        shared.manager.start(request)
        self._models.append(shared)
        return shared

    def leave(self, user: DetectorModel, shared: SharedModel) -> None:
        """Stop using a model, which is closed with its last user."""
        shared.users = tuple(other for other in shared.users if other is not user)
        if not shared.users and shared in self._models:
            self._models.remove(shared)
            shared.manager.stop()

    def status_values(self) -> dict[str, Any]:
        """Status values, equal for all cameras."""
        needed = sum(need.share for need in self.needs.values())
        return {
            "shared.cameras": sum(len(shared.users) for shared in self._models),
            "shared.models": len(self._models),
            "shared.load_percent": 100.0 * self.worker.load.share(running_s()),
            "shared.needed_percent": 100.0 * needed if self.needs else None,
        }


def warm_detector(bundle: Bundle, session: Session) -> Detector:
    """The detector of a bundle after its first runs. Raises BundleError, BackendError, HeadError."""
    detector = Detector.from_bundle(bundle, session)
    detector.warm_up()
    return detector
