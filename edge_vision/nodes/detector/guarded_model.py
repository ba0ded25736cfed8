"""Compares a model with `valid_for` with its teacher, and publishes the teacher's detections if it fails."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from edge_vision.backends.serving.loaded_model import LoadedModel
from edge_vision.backends.serving.model_manager import ModelManager
from edge_vision.core.detections import DetectionResult, Detections
from edge_vision.core.frame import Frame
from edge_vision.core.running_clock import running_s
from edge_vision.detect.detector import Detector
from edge_vision.detect.scene_guard import DOUBTFUL, FALLBACK, SceneGuard, agreement
from edge_vision.errors import BackendError, EdgeVisionError, HeadError
from edge_vision.nodes.base_node import BaseNode
from edge_vision.nodes.detector.model import warm_detector
from edge_vision.nodes.model_loading import model_request

Detect = Callable[[Detector], DetectionResult]


class GuardedModel:
    """The guard of one detector node. The worker calls `detect`, any thread the rest."""

    def __init__(self, node: BaseNode) -> None:
        self._node = node
        self._model: LoadedModel[Detector] | None = None
        self._teacher: ModelManager[Detector] | None = None
        self._guard = SceneGuard(0.0)
        self._error = ""

    def use(self, model: LoadedModel[Detector]) -> None:
        """Guard this model from now on, if it is valid for some scenes only."""
        before, valid_for = self._model, model.bundle.manifest.valid_for
        if not (before and before.bundle.manifest == model.bundle.manifest):
            self.close()
        self._model = model
        if valid_for and not self._teacher and self._node.params["guard"]:
            self._guard = SceneGuard(valid_for.agreement)
            self._teacher = ModelManager(warm_detector, self._log, lambda _: None)
            loading = (self._teacher, valid_for.teacher, model)
            threading.Thread(target=self._load, args=loading, daemon=True).start()

    def close(self) -> None:
        """Close the teacher."""
        teacher, self._teacher, self._model, self._error = self._teacher, None, None, ""
        if teacher:
            teacher.stop()

    def _load(self, teacher: ModelManager[Detector], name: str, model: LoadedModel[Detector]) -> None:
        wanted = model_request(self._node)  # Backends are not measured again: that takes seconds.
        backend = model.report.actual.backend if wanted.backend == "auto" else wanted.backend
        try:
            teacher.start(replace(wanted, model=name, backend=backend))
            self._log("info", "guard_loaded", f"the model is compared with its teacher, {name}")
        except EdgeVisionError as error:
            self._error = f"guard: {error}"
            self._log("warning", "guard_unavailable", f"the model is not compared with its teacher: {error}")
        if self._teacher is not teacher:  # Closed meanwhile.
            teacher.stop()

    def detect(self, detector: Detector, frame: Frame, detect: Detect) -> DetectionResult:
        """The detections of the model, or of its teacher with the model's classes. Raises as `detect`."""
        model, guard, now_s = self._model, self._guard, running_s()
        due = guard.is_due(now_s)
        if not (model and model.runner is detector and (due or guard.uses_teacher)):
            return detect(detector)
        expected = self._expected(model, detect)
        if expected is None:
            return detect(detector)
        if due:
            ours = detector.detect(frame, with_low_score=True)
            agrees = agreement(ours, expected, detector.thresholds.score_threshold)
            if agrees is False:
                topic = self._node.resolve_topic_name("~/disagreements")
                self._node.hub.notify(topic, frame, ours.detections, expected.detections)
            if guard.add(agrees, now_s) and guard.state != DOUBTFUL:
                severity = "warning" if guard.state == FALLBACK else "info"
                text = self.trouble or "the model agrees with its teacher"
                self._log(severity, f"guard_{guard.state}", text)
        return expected

    def _expected(self, model: LoadedModel[Detector], detect: Detect) -> DetectionResult | None:
        """The teacher's detections; None if it is not loaded or fails."""
        manager, detector = self._teacher, model.runner
        if not (manager and manager.model):
            return None
        try:
            teacher = manager.acquire(None)
            teacher.runner.thresholds = detector.thresholds
            detector.run_began_s = running_s()  # For the watchdog.
            result = detect(teacher.runner)
        except (BackendError, HeadError) as error:
            manager.revoke(0.0)
            self._log("warning", "guard_unavailable", f"the teacher failed: {error}")
            return None
        finally:
            detector.run_began_s = math.inf
        if not manager.release(teacher):
            return None
        labels = teacher.bundle.labels, model.bundle.labels
        low_score = result.low_score and _renamed(result.low_score, *labels)
        return replace(result, detections=_renamed(result.detections, *labels), low_score=low_score)

    def _log(self, severity: str, event: str, text: str) -> None:
        self._node.structured_log.event(event, text, severity, **self.status_values())

    @property
    def trouble(self) -> str:
        """Why the model is not used or not guarded, in one sentence; "" if it is."""
        if self._teacher and self._guard.state == FALLBACK:
            return "the model disagrees with its teacher on this scene, whose detections are published"
        return self._error

    def status_values(self) -> dict[str, Any]:
        """Status values."""
        return {
            "guard.state": self._guard.state if self._teacher and not self._error else "off",
            "guard.agreement": self._guard.agreement,
            "guard.compared": self._guard.compared,
            "guard.fallbacks": self._guard.falls,
        }


def _renamed(found: Detections, theirs: tuple[str, ...], ours: tuple[str, ...]) -> Detections:
    """Those with one of our labels, with its id."""
    ids = np.array([ours.index(label) if label in ours else -1 for label in theirs], np.int32)
    kept = found.select(ids[found.class_ids] >= 0)
    return replace(kept, class_ids=ids[kept.class_ids])
