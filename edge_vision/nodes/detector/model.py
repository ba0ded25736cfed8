"""The detector node's model: loaded, watched and replaced as its parameters request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rclpy.parameter import Parameter

from edge_vision.backends import Session
from edge_vision.backends.serving.loaded_model import LoadedModel
from edge_vision.backends.serving.model_manager import ModelManager
from edge_vision.bundles import Bundle
from edge_vision.detect.detector import Detector
from edge_vision.errors import BackendError, HeadError
from edge_vision.nodes.base_node import BaseNode, steady_clock
from edge_vision.nodes.model_loading import (
    check_model_params,
    log_loaded_model,
    model_request,
    request_parameters,
)

R = TypeVar("R")
WATCH_PERIOD_S = 0.2
"""Period of the checks for a hanging inference, a due retry and a refused model."""
MAX_ATTEMPTS = 3
"""Number of backends that may fail on one frame."""


class DetectorModel:
    """The model of one detector node.

    on_change: called with a model that has taken over, from any thread. on_hang: called with the work item of
    an abandoned inference. time_limit_s: gives the duration above which an inference is abandoned, 0 = none.
    """

    def __init__(
        self,
        node: BaseNode,
        on_change: Callable[[LoadedModel[Detector]], None],
        on_hang: Callable[[Any], None],
        time_limit_s: Callable[[], float],
    ) -> None:
        self._node, self._on_hang, self._time_limit_s = node, on_hang, time_limit_s
        self.manager: ModelManager[Detector] = ModelManager(_warm_detector, self._log, on_change)
        self._restoring = False
        self._timer: Any = None

    @property
    def current(self) -> LoadedModel[Detector] | None:
        """The model in use."""
        return self.manager.model

    def start(self) -> None:
        """Load the requested model. Raises BundleError, BackendError, HeadError."""
        log_loaded_model(self._node, self.manager.start(model_request(self._node)))
        self._timer = self._node.create_timer(WATCH_PERIOD_S, self._watch, clock=steady_clock())

    def stop(self) -> None:
        """Close the model."""
        if self._timer:
            self._node.destroy_timer(self._timer)
            self._timer = None
        self.manager.stop()

    def run(self, item: Any, use: Callable[[Detector], R]) -> tuple[LoadedModel[Detector], R] | None:
        """Use the model on a work item; the next best one if it fails.

        Returns the model and the result, or None if the item was given to another thread meanwhile. Raises
        BackendError or HeadError if the backends fail.
        """
        failed: set[int] = set()
        while True:
            model = self.manager.acquire(item)
            try:
                result = use(model.runner)
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
                return (model, result) if self.manager.release(model) else None

    # Parameters.
    def check_params(self, values: Mapping[str, Any], changed: set[str]) -> None:
        """See `BaseNode.check_params`."""
        if not self._restoring:
            check_model_params(values, changed)

    def request_change(self) -> None:
        """Load what the parameters request, in the background."""
        if not self._restoring:
            self.manager.swap(model_request(self._node))

    def _watch(self) -> None:
        """Abandon a hanging inference, retry failed backends, restore the parameters of a refused model."""
        self.manager.retry_if_due()
        limit_s = self._time_limit_s()
        if limit_s and (item := self.manager.revoke(limit_s)) is not None:
            self._on_hang(item)
        refused, self.manager.refused = self.manager.refused, None
        if refused == model_request(self._node):
            self._restore_params()

    def _restore_params(self) -> None:
        """Set the parameters to the model in use. The refusal stays in the status until the user sets one."""
        request = self.manager.request
        values = request_parameters(request) if request else {}
        changed = [name for name in values if values[name] != self._node.params[name]]
        self._restoring = True
        try:
            self._node.set_parameters_atomically([Parameter(name, value=values[name]) for name in changed])
        finally:
            self._restoring = False

    def _log(self, severity: str, event: str, text: str) -> None:
        self._node.structured_log.event(event, text, severity, **self.manager.status_values())


def _warm_detector(bundle: Bundle, session: Session) -> Detector:
    detector = Detector.from_bundle(bundle, session)
    detector.warm_up()
    return detector
