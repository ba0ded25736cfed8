"""The cascade node: small classifiers decide which frames the detector runs on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from edge_vision.cascade.cascade import Cascade, CascadeConfig
from edge_vision.cascade.stages import CascadeStage, effective_thresholds, stage_from_bundle
from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.geometry.boxes import NO_REGIONS
from edge_vision.gate.frame_gate import FORCED
from edge_vision.nodes import run
from edge_vision.nodes.base_node import ERROR, OK, WARN
from edge_vision.nodes.interface import specs
from edge_vision.nodes.model_loading import check_model_params
from edge_vision.nodes.served_classifier import ServedClassifier
from edge_vision.nodes.stage_node import StageNode, camera_motion_of


class CascadeNode(StageNode):
    """The middle stage: accepts or rejects the frames that passed the gate."""

    spec = specs.CASCADE
    image_in, events_in = "gate/image", "gate_events"
    image_out, events_out = "image_accepted", "cascade_events"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cascade = Cascade()
        self._models: list[ServedClassifier] = []

    def configure(self) -> None:
        names = [self.params["model"], *self.params["next_models"]]
        if not names[0]:
            if names[1:]:
                raise ValueError(
                    "next_models: expected with a model, got an empty one; set model to the first of them"
                )
            self._cascade = Cascade(config=self._config())
            return
        models: list[ServedClassifier] = []
        try:
            for name in names:
                if models:
                    self.last_model = ""  # An additional model, not a replacement.
                models.append(ServedClassifier(self, name))
            stages = [self._stage(model) for model in models]
        except Exception:
            for model in models:
                model.close()
            raise
        self._models, self._cascade = models, Cascade(stages, self._config())

    def _stage(self, model: ServedClassifier) -> CascadeStage:
        params = self.params
        return stage_from_bundle(
            model.bundle,
            model,
            params["wanted_labels"],
            params["score_threshold"],
            params["reject_threshold"],
        )

    def cleanup(self) -> None:
        models, self._models = self._models, []
        self._cascade = Cascade()
        for model in models:
            model.close()

    def check_params(self, values: Mapping[str, Any], changed: set[str]) -> None:
        # An empty model switches the cascade off.
        check_model_params(values, changed if values["model"] else changed - {"model"})
        for model in getattr(self, "_models", []):
            accept_threshold, reject_threshold = _thresholds(model, values)
            if reject_threshold > accept_threshold:
                raise ValueError(
                    f"reject_threshold: expected at most score_threshold, {accept_threshold:g} for "
                    f"{model.bundle.name}, got {reject_threshold:g}: set both at once, or that one first"
                )

    def on_params(self, names: set[str]) -> None:
        self._cascade.config = self._config()
        for stage, model in zip(self._cascade.stages, self._models, strict=True):
            accept_threshold, reject_threshold = _thresholds(
                model, {name: self.params[name] for name in _THRESHOLDS}
            )
            stage.set_thresholds(reject_threshold, accept_threshold)

    def _config(self) -> CascadeConfig:
        return CascadeConfig(**{field.name: self.params[field.name] for field in fields(CascadeConfig)})

    def needs_worker(self) -> bool:
        # A compressed frame that is passed through is decoded if the image topic has a subscriber.
        return not self._cascade.passes_through or self.params["image_transport"] == "compressed"

    def accept(self, frame: Frame, event: FrameEvent | None) -> None:
        """As for every stage, but a cascade that is off passes the frame on at once."""
        receive = self.output.receiver
        if receive is None or not self._active or not self._cascade.passes_through:
            super().accept(frame, event)
            return
        self.stats.record_arrival()
        self.stats.rate_out.count()
        receive(frame, event)
        regions = event.regions if event else NO_REGIONS
        self.output.publish(frame, self.event(frame, "", "off", regions, camera_motion_of(event)))

    def process(self, frame: Frame, event: FrameEvent | None) -> None:
        regions, motion = event.regions if event else NO_REGIONS, camera_motion_of(event)
        if event and event.reason in FORCED:
            self.forward(frame, event.reason, regions, motion)
            return
        self._cascade.zones = self.hub.zones
        decision = self._cascade.decide(frame, regions, time.monotonic_ns())
        if decision.reason == "classifier_error":
            self.log_throttled(
                "error", f"classifier failed, frames are accepted: {self._cascade.last_error}", "classifier"
            )
        if decision.accepted:
            self.forward(frame, decision.reason, decision.regions, motion)
        else:
            self.settle(frame, "rejected", decision.reason, motion)

    def health(self) -> tuple[int, str]:
        if self._cascade.last_error:
            return ERROR, f"classifier failed: {self._cascade.last_error}"
        level, text = super().health()
        reason = next(filter(None, (one.model.report.fallback_reason for one in self._models)), None)
        return (WARN, f"fallback: {reason}") if level == OK and reason else (level, text)

    def publish_status(self) -> None:
        for model in self._models:
            model.watch(self.params["max_blind_ms"] / 1e3)
        super().publish_status()

    def status_values(self) -> dict[str, Any]:
        model = self._models[0].manager.status_values() if self._models else {"model": "off"}
        enabled = self.params["enabled"]
        bound_ms = self.params["max_blind_ms"] if self._models and enabled else 0.0
        own = {"enabled": enabled, "max_blind_ms": bound_ms}
        return {**super().status_values(), **own, **model, **self._cascade.status()}

    def reset_stats(self) -> None:
        super().reset_stats()
        self._cascade.reset_stats()


_THRESHOLDS = ("score_threshold", "reject_threshold")


def _thresholds(model: ServedClassifier, values: Mapping[str, Any]) -> tuple[float, float]:
    return effective_thresholds(model.bundle.manifest.stage, *(values[name] for name in _THRESHOLDS))


def main(args: list[str] | None = None) -> int:
    return run.main([CascadeNode], "cascade_node", args)
