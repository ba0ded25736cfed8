"""A classifier in a node: the next backend serves while the requested one fails, which then returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from edge_vision.backends.serving.loaded_model import LoadedModel
from edge_vision.backends.serving.model_manager import ModelManager
from edge_vision.core.detections import Classification
from edge_vision.core.frame import Frame
from edge_vision.detect.classifier import Classifier, warm_classifier
from edge_vision.errors import BackendError
from edge_vision.nodes.base_node import BaseNode
from edge_vision.nodes.model_loading import log_loaded_model, model_request

R = TypeVar("R")


class ServedClassifier:
    """A bundle with the backend parameters of a node. One caller of the classify methods at a time."""

    def __init__(self, node: BaseNode, name: str) -> None:
        """Load a bundle. Raises BundleError, BackendError, HeadError."""
        self._node = node
        self.manager: ModelManager[Classifier] = ModelManager(warm_classifier, self._log, lambda _: None)
        self._last = self.manager.start(replace(model_request(node), model=name))
        self.bundle = self._last.bundle
        log_loaded_model(node, self._last)

    @property
    def model(self) -> LoadedModel[Classifier]:
        """The model that serves, or the last one that did."""
        self._last = self.manager.model or self._last
        return self._last

    def classify(self, frame: Frame) -> Classification:
        """As Classifier, on the next backend if this one fails. Raises BackendError if none works."""
        return self._run(lambda classifier: classifier.classify(frame))

    def classify_regions(self, frame: Frame, xyxy_px: np.ndarray) -> list[Classification]:
        """As `classify`, see Classifier."""
        return self._run(lambda classifier: classifier.classify_regions(frame, xyxy_px))

    def _run(self, use: Callable[[Classifier], R]) -> R:
        model = self.manager.acquire(None)
        try:
            return use(model.runner)
        except BackendError as error:
            failure = str(error)
        finally:
            self.manager.release(model)
        self.manager.report_failure(model, failure)
        return self._run(use)

    def watch(self, limit_s: float) -> None:
        """Once a second: try a failed backend again when it is due. limit_s: of a run on a server."""
        self.model.session.deadline_s = limit_s
        self.manager.retry_if_due()

    def close(self) -> None:
        """Close the model; one that hangs in a run is closed when the run ends."""
        self.manager.stop()

    def _log(self, severity: str, event: str, text: str) -> None:
        self._node.structured_log.event(event, text, severity, **self.manager.status_values())
