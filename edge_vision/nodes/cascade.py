"""The cascade node: a light classifier first, the detector where it is worth it."""

from __future__ import annotations

import time
from dataclasses import fields
from typing import Any

from edge_vision.backends import Session
from edge_vision.backends.keeper import LoadedModel
from edge_vision.bundles import Bundle
from edge_vision.core.cascade import Cascade, CascadeConfig, wanted_class_ids
from edge_vision.core.classifier import Classifier
from edge_vision.core.frame import Frame
from edge_vision.core.gate import NO_REGIONS
from edge_vision.core.gate_policy import ANYWAY
from edge_vision.core.tick import Tick
from edge_vision.nodes import run, specs
from edge_vision.nodes.base import ERROR
from edge_vision.nodes.model import load_for
from edge_vision.nodes.stage import StageNode, motion_of


class CascadeNode(StageNode):
    """The middle stage: accepts or rejects what the gate let pass."""

    spec = specs.CASCADE
    image_in, ticks_in = "gate/image", "gate_ticks"
    image_out, ticks_out = "image_accepted", "cascade_ticks"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cascade = Cascade()
        self._model: LoadedModel[Classifier] | None = None

    def configure(self) -> None:
        if not self.params["model"]:
            self._cascade = Cascade(config=self._config())
            return
        if not self.params["wanted_labels"]:
            raise ValueError(
                "the cascade has a model but no wanted_labels: name the labels worth the detector"
            )
        model = load_for(self, _classifier)
        try:
            wanted = wanted_class_ids(model.bundle.labels, self.params["wanted_labels"])
        except Exception:
            model.session.close()
            raise
        self._model, self._cascade = model, Cascade(model.runner, wanted, self._config())

    def cleanup(self) -> None:
        model, self._model = self._model, None
        self._cascade = Cascade()
        if model and not self.worker_hangs:
            model.session.close()

    def on_params(self, names: set[str]) -> None:
        self._cascade.config = self._config()

    def _config(self) -> CascadeConfig:
        return CascadeConfig(**{field.name: self.params[field.name] for field in fields(CascadeConfig)})

    def needs_worker(self) -> bool:
        return not self._cascade.passes_through

    def accept(self, frame: Frame, tick: Tick | None) -> None:
        """As for every stage; but where nothing is to be decided, the frame goes on at once."""
        receive = self.hub.receiver(self._out_topic)
        if receive is None or not self._active or not self._cascade.passes_through:
            super().accept(frame, tick)
            return
        self.rate_in.tick()
        self.rate_out.tick()
        receive(frame, tick)
        regions = tick.regions if tick else NO_REGIONS
        self._show_outside(frame, self._tick(frame, "", "off", regions, motion_of(tick)))

    def process(self, frame: Frame, tick: Tick | None) -> None:
        regions, motion = tick.regions if tick else NO_REGIONS, motion_of(tick)
        if tick and tick.reason in ANYWAY:
            # The gate asks what it would have missed, or what became of an object: the detector must answer.
            self.hand_on(frame, tick.reason, regions, motion)
            return
        decision = self._cascade.decide(frame, regions, time.monotonic_ns())
        if decision.reason == "classifier_error":
            self.log_throttled(
                "error", f"classifier failed, frames are accepted: {self._cascade.last_error}", "classifier"
            )
        if decision.accepted:
            self.hand_on(frame, decision.reason, decision.regions, motion)
        else:
            self.settle(frame, "rejected", decision.reason, motion)

    def health(self) -> tuple[int, str]:
        if self._cascade.last_error:
            return ERROR, f"classifier failed: {self._cascade.last_error}"
        return super().health()

    def status_values(self) -> dict[str, Any]:
        model = self._model.status_values() if self._model else {"model": "off"}
        return {**super().status_values(), "enabled": self.params["enabled"], **model}


def _classifier(bundle: Bundle, session: Session) -> Classifier:
    classifier = Classifier.from_bundle(bundle, session)
    classifier.warm_up()
    return classifier


def main(args: list[str] | None = None) -> int:
    """Run the cascade alone."""
    return run.main([CascadeNode], "cascade_node", args)
