"""What the detectors of one process share: a worker, the models, and the figures of their load."""

from __future__ import annotations

from typing import Any, Protocol

from edge_vision.backends import Session
from edge_vision.backends.serving.loaded_model import LoadedModel, ModelRequest
from edge_vision.backends.serving.model_manager import ModelManager
from edge_vision.bundles import Bundle
from edge_vision.core.concurrency.worker import Worker
from edge_vision.core.running_clock import running_s
from edge_vision.detect.delay_promise import CameraNeed, unmet_promise
from edge_vision.detect.detector import Detector


class ModelUser(Protocol):
    """One detector that uses a shared model."""

    def on_model(self, model: LoadedModel[Detector]) -> None:
        """A model has taken over. Any thread calls it."""

    def log(self, severity: str, event: str, text: str) -> None:
        """Log an event of the model."""


class SharedModel:
    """One model in memory and the detectors that use it. The first of them logs its events."""

    def __init__(self) -> None:
        self.users: tuple[ModelUser, ...] = ()
        self.manager: ModelManager[Detector] = ModelManager(_warm_detector, self._log, self._on_model)

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

    def join(self, user: ModelUser, request: ModelRequest) -> SharedModel:
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

    def leave(self, user: ModelUser, shared: SharedModel) -> None:
        """Stop using a model, which is closed with its last user."""
        shared.users = tuple(other for other in shared.users if other is not user)
        if not shared.users and shared in self._models:
            self._models.remove(shared)
            shared.manager.stop()

    def unmet_promise(self) -> str:
        return unmet_promise(self.needs)

    def status_values(self) -> dict[str, Any]:
        """Status values, equal for all cameras."""
        needed = sum(need.share for need in self.needs.values())
        return {
            "shared.cameras": sum(len(shared.users) for shared in self._models),
            "shared.models": len(self._models),
            "shared.load_percent": 100.0 * self.worker.load.share(running_s()),
            "shared.needed_percent": 100.0 * needed if self.needs else None,
        }


def _warm_detector(bundle: Bundle, session: Session) -> Detector:
    detector = Detector.from_bundle(bundle, session)
    detector.warm_up()
    return detector
