"""A simulated pipeline: a camera, the gate's limiter, and a CPU that each inference loads."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edge_vision.gate.governor import Governor, GovernorStep
from edge_vision.gate.inference_limiter import InferenceLimiter
from edge_vision.gate.load_cap import Budget
from edge_vision.gate.scheduler import Promise

PROMISE = Promise(max_delay_ms=100.0, min_fidelity=0.97, max_blind_ms=2000.0)


def cpu_budget(percent: float) -> Budget:
    """As of cpu_budget_percent."""
    return Budget(percent, f"cpu_budget_percent {percent:g}")


@dataclass
class Plant:
    """fps_hz: of the camera. base, cost: CPU seconds per second and per inference, of all cores. urgent: the
    probability that a frame is due for min_fidelity alone. noise: relative standard deviation of the cost.
    busy: False = nothing changes.
    """

    fps_hz: float = 10.0
    base: float = 0.05
    cost: float = 0.04
    urgent: float = 0.8
    noise: float = 0.1
    rungs: tuple[float, ...] = (1.0,)
    busy: bool = True
    limiter: InferenceLimiter = field(default_factory=InferenceLimiter)
    steps: list[GovernorStep] = field(default_factory=list)
    broken_rungs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.governor = Governor(self.rungs)
        self.cpu_s, self.now_s, self.rung = 100.0, 1000.0, 0
        self.frame, self.since, self.rng = 0, 0, np.random.default_rng(7)

    def run(self, seconds: float, budget: Budget | None) -> float:
        """Run for so long. Returns the mean load in percent."""
        before_s, governor = self.cpu_s, self.governor
        for _ in range(round(seconds)):
            for _ in range(round(self.fps_hz)):
                self._show_frame()
            self.cpu_s += self.base * (1.0 + self.noise * self.rng.normal() / 3)
            if self.rung != governor.rung and governor.rung not in self.broken_rungs:
                self.rung = governor.rung
                governor.model_began()
            step = governor.update(self.now_s, self.cpu_s, self.limiter.counts, PROMISE, budget)
            self.limiter.limit = governor.limit
            self.steps += [step] if step else []
        return 100.0 * (self.cpu_s - before_s) / seconds

    def _show_frame(self) -> None:
        self.now_s += 1.0 / self.fps_hz
        self.since += 1
        reason, needed = self._due()
        if self.limiter.admits(reason, round(self.now_s * 1e9), needed):
            self.since = 0
            share = self.rungs[self.rung] / self.rungs[0]
            self.cpu_s += self.cost * share * max(0.1, 1.0 + self.noise * self.rng.normal())

    def _due(self) -> tuple[str, float]:
        interval = 1 + int(PROMISE.max_delay_ms * self.fps_hz / 1000 + 1e-6)
        if self.since >= PROMISE.max_blind_ms * self.fps_hz / 1000:
            return "refresh", 0.0
        if not self.busy:
            return "", 0.0
        if self.since >= interval:
            return "interval", 1.0 / interval
        return ("urgent" if self.rng.random() < self.urgent else ""), 1.0 / interval

    @property
    def events(self) -> list[str]:
        return [step.event for step in self.steps]
