"""The gate node: drops frames in which nothing new can be seen."""

from __future__ import annotations

import time
from dataclasses import fields
from typing import Any

from edge_vision.core.frame import Frame
from edge_vision.core.gate import FrameGate, GateConfig
from edge_vision.core.tick import Tick
from edge_vision.nodes import run, specs
from edge_vision.nodes.stage import StageNode


class GateNode(StageNode):
    """The first stage: opens every frame's account, and passes or gates the frame."""

    spec = specs.GATE
    image_in, image_out, ticks_out = "image_raw", "image_gated", "gate_ticks"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._gate = FrameGate()
        self._reset_reason = ""
        self._last_reason = ""

    def configure(self) -> None:
        self._gate = FrameGate(self._config())

    def on_params(self, names: set[str]) -> None:
        self._gate.config = self._config()

    def _config(self) -> GateConfig:
        return GateConfig(**{field.name: self.params[field.name] for field in fields(GateConfig)})

    def on_time_jump(self) -> None:
        # Taken up by the worker, which alone touches the gate's memory.
        self._reset_reason = "clock_jump"

    def process(self, frame: Frame, tick: Tick | None) -> None:
        reason, self._reset_reason = self._reset_reason, ""
        if reason:
            self._gate.reset(reason)
        try:
            decision = self._gate.decide(frame, time.monotonic_ns())
        except Exception as error:  # A gate that fails must let pass, not blind the detector.
            self.log_throttled("error", f"gate failed, the frame passes: {error}", "gate_error")
            self._gate.reset("gate_error")
            self.hand_on(frame, "gate_error")
            return
        self._last_reason = decision.reason
        if decision.passed:
            self.hand_on(frame, decision.reason, decision.regions)
        else:
            self.settle(frame, "gated", decision.reason)

    def status_values(self) -> dict[str, Any]:
        return {
            **super().status_values(),
            "enabled": self.params["enabled"],
            "last_reason": self._last_reason,
        }


def main(args: list[str] | None = None) -> int:
    """Run the gate alone."""
    return run.main([GateNode], "gate_node", args)
