"""Keeps the load within a budget of CPU time, and reports what it gives up for it.

Once a second it compares the load with the budget, and moves along this order, one step at a time:

    full       every frame that the schedule selects is inferred
    stretched  only as many as the budget allows, but all that max_delay_ms needs: min_fidelity is given up
    rungs      the same with a faster model of a ladder, if there is one
    limited    only as many as the budget allows: max_delay_ms is given up

Within a step the rate of inferences is controlled continuously (an integrator on its logarithm), so that the
load settles at the budget. It climbs back where the measured figures predict that the load then fits.
Pure: the caller passes times and counts.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edge_vision.gate.inference_limiter import InferenceLimit, PassCounts
from edge_vision.gate.load_cap import Budget
from edge_vision.gate.scheduler import Promise

WINDOW_S = 5.0
"""The load is averaged over so long: a second has few inferences."""
TOLERANCE = 0.05
"""The load exceeds its budget above this much more."""
GAIN = 0.2
"""Share of the difference (of logarithms) that is removed per second. With the delay of the window, more than
0.5 oscillates."""
HOLD_S = 5.0
"""A step down needs a cause that lasts this long, beyond the window."""
RELAX_S = 10.0
"""So long nothing was withheld before a limit is lifted."""
RELAX_SHARE = 0.9
CLIMB_S, MAX_CLIMB_S = 30.0, 600.0
"""Before a slower model is loaded again. Doubled when that did not last."""
CLIMB_MARGIN = 1.15
SWAP_LIMIT_S = 30.0
_TINY = 1e-6


class GovernorStep(NamedTuple):
    """One step of the governor. event: down, up, rung, or unreachable. text: one sentence with the reason."""

    event: str
    text: str


@dataclass(frozen=True, slots=True)
class _Sample:
    now_s: float
    cpu_s: float
    counts: PassCounts


@dataclass(frozen=True, slots=True)
class Load:
    """Means over the window. cpu_percent: of all cores. passes_hz, needed_hz: inferences, and those that
    max_delay_ms needs. optional, withheld, overdue: frames, as in PassCounts."""

    cpu_percent: float
    frames_hz: float
    passes_hz: float
    needed_hz: float
    optional: float
    withheld: float
    overdue: float


class Governor:
    """One per process. Not thread-safe.

    rungs: the relative time of an inference with each model of the ladder, from the configured one
    down to the fastest; one entry without a ladder. May be set while `rung` is 0. `limit` and `rung` are what
    the caller applies.
    """

    def __init__(self, rungs: Sequence[float] = (1.0,)) -> None:
        self.rungs = tuple(rungs)
        self.limit: InferenceLimit | None = None
        self.rung = 0
        self.load: Load | None = None
        self.trouble = ""
        """The promise that is not kept, in one sentence; "" if all are."""
        self._samples: deque[_Sample] = deque()
        self._since_s: dict[str, float] = {}
        self._swap_from: tuple[int, float] | None = None
        self._climbed_s = -math.inf
        self._climb_s = CLIMB_S
        self._unreachable = False

    @property
    def level(self) -> str:
        """full, stretched or limited."""
        if self.limit is None:
            return "full"
        return "stretched" if self.limit.keep_delay else "limited"

    def restart(self) -> None:
        """Forget the load: what follows is not comparable."""
        self._samples.clear()
        self._since_s.clear()

    def model_began(self) -> None:
        """Another model runs."""
        self._swap_from = None
        self.restart()

    def update(
        self,
        now_s: float,
        cpu_s: float,
        counts: PassCounts,
        promise: Promise,
        budget: Budget | None,
        cameras: int = 1,
    ) -> GovernorStep | None:
        """Control the load, and return the step that this took, if any.

        cpu_s: CPU time so far, divided by the number of cores. counts: of all cameras. promise: of one of
        them, for the sentences. budget: None if there is none.
        """
        if self._swap_from:
            return self._await_swap(now_s)
        load = self._measure(_Sample(now_s, cpu_s, counts))
        self.load = load or self.load
        if budget is None:
            return self._release(now_s)
        if load is None:
            return None
        ratio = load.cpu_percent / max(budget.percent, _TINY)
        step_s = now_s - self._samples[-2].now_s
        situation = _Situation(now_s, step_s, load, ratio, budget, promise, cameras)
        step = self._STEPS[self.level](self, situation)
        self.trouble = self._trouble(situation)
        return step

    # Measurement.
    def _measure(self, sample: _Sample) -> Load | None:
        """The load, None until it is known over the whole window."""
        samples = self._samples
        samples.append(sample)
        while len(samples) > 1 and sample.now_s - samples[1].now_s >= WINDOW_S:
            samples.popleft()
        seconds = sample.now_s - samples[0].now_s
        if seconds < WINDOW_S:
            return None
        counts = sample.counts.plus(samples[0].counts, -1)
        return Load(
            100.0 * (sample.cpu_s - samples[0].cpu_s) / seconds,
            counts.frames / seconds,
            counts.passed / seconds,
            counts.needed / seconds,
            counts.optional,
            counts.withheld,
            counts.overdue,
        )

    def _held(self, name: str, holds: bool, now_s: float, seconds: float) -> bool:
        """Whether a condition has held for so long."""
        if not holds:
            self._since_s.pop(name, None)
            return False
        return now_s - self._since_s.setdefault(name, now_s) >= seconds

    # Steps.
    def _full(self, at: _Situation) -> GovernorStep | None:
        if not self._held("over", at.over, at.now_s, HOLD_S):
            return self._climb_if_it_fits(at)
        if at.load.optional:
            return self._set_limit(at, at.load.passes_hz / at.ratio, True, "down")
        return self._give_up_more(at)

    def _stretched(self, at: _Situation) -> GovernorStep | None:
        self._adjust(at)
        if self._held("exhausted", at.over and not at.load.optional, at.now_s, HOLD_S):
            return self._give_up_more(at)
        if self._held("free", at.load.withheld == 0 and at.ratio < RELAX_SHARE, at.now_s, RELAX_S):
            return self._lift_limit(at)
        return self._climb_if_it_fits(at)

    def _limited(self, at: _Situation) -> GovernorStep | None:
        self._adjust(at)
        assert self.limit
        if self._held("on_time", at.load.overdue == 0 and not at.over, at.now_s, RELAX_S):
            return self._set_limit(at, self.limit.rate_hz, True, "up")
        floor = at.over and self.limit.rate_hz <= at.floor_hz
        if self._held("floor", floor, at.now_s, HOLD_S) and not self._unreachable:
            self._unreachable = True
            return GovernorStep("unreachable", self._unreachable_text(at))
        self._unreachable &= at.over
        return None

    _STEPS = {"full": _full, "stretched": _stretched, "limited": _limited}

    def _give_up_more(self, at: _Situation) -> GovernorStep:
        """All that is left is what max_delay_ms needs: a faster model, or less than that."""
        if self.rung + 1 < len(self.rungs):
            return self._swap(at, self.rung + 1)
        return self._set_limit(at, at.load.passes_hz / at.ratio, False, "down")

    def _adjust(self, at: _Situation) -> None:
        """Move the limit towards the rate at which the load is the budget.

        The load is base + cost * passes_hz. For any base, that rate is at most passes_hz / ratio while the
        load is too large, and at least as much while it is too small: so far at once, then step by step.
        """
        assert self.limit
        rate_hz, keep_delay = self.limit.rate_hz, self.limit.keep_delay
        bound_hz = at.load.passes_hz / max(at.ratio, _TINY)
        if abs(at.ratio - 1.0) > TOLERANCE:
            rate_hz = min(rate_hz, bound_hz) if at.ratio > 1.0 else max(rate_hz, bound_hz)
        rate_hz *= min(max(at.ratio, 0.5), 2.0) ** (-GAIN * min(at.step_s, 2.0))
        # Where it has no effect, it must not run away: the way back would take as long.
        low_hz = at.load.needed_hz / 2 if keep_delay else at.floor_hz
        high_hz = max(1.25 * at.load.frames_hz, at.floor_hz)
        self.limit = InferenceLimit(min(max(rate_hz, low_hz, _TINY), high_hz), keep_delay)

    def _set_limit(self, at: _Situation, rate_hz: float, keep_delay: bool, event: str) -> GovernorStep:
        self.limit = InferenceLimit(max(rate_hz, at.floor_hz), keep_delay)
        self._unreachable = False
        self.restart()
        given_up = _STRETCHED if keep_delay else _LIMITED
        return GovernorStep(event, f"{at.cause(event == 'down')}: {given_up.format(**self._figures(at))}")

    def _lift_limit(self, at: _Situation) -> GovernorStep:
        self.limit = None
        self.restart()
        return GovernorStep(
            "up", f"{at.cause(False)}: every frame that max_delay_ms and min_fidelity need is inferred"
        )

    def _release(self, now_s: float) -> GovernorStep | None:
        """Lift the limit and return to the configured model, as no budget applies any more."""
        self.trouble, self._unreachable = "", False
        if self.limit is None and self.rung == 0:
            return None
        limited, self.limit = self.limit is not None, None
        if self.rung:
            self._swap_from, self.rung = (self.rung, now_s), 0
        self.restart()
        what = "the schedule alone decides again" if limited else "loading the configured model"
        return GovernorStep("up", f"no limit of the load applies any more: {what}")

    # The ladder.
    def _swap(self, at: _Situation, rung: int) -> GovernorStep:
        faster = rung > self.rung
        relative = self.rungs[rung] / self.rungs[self.rung]
        self._swap_from, self.rung = (self.rung, at.now_s), rung
        if faster:
            lasted_s = at.now_s - self._climbed_s
            self._climb_s = min(2 * self._climb_s, MAX_CLIMB_S) if lasted_s < 4 * self._climb_s else CLIMB_S
        else:
            self._climbed_s = at.now_s
        self.restart()
        why = "even at the lowest rate that keeps max_delay_ms" if faster else "with room to spare"
        text = f"{at.cause(faster)} {why}: loading rung {rung} of the ladder, {relative:.2f} of the time"
        return GovernorStep("rung", f"{text} per inference")

    def _climb_if_it_fits(self, at: _Situation) -> GovernorStep | None:
        """Load the next slower model if the lowest rate that keeps max_delay_ms is then within the budget.

        The load is base + cost * passes_hz. For any base, it is then at most the larger one of the present
        load and this prediction.
        """
        if not self.rung:
            return None
        slower = self.rungs[self.rung - 1] / self.rungs[self.rung]
        predicted = at.ratio * slower * at.load.needed_hz * CLIMB_MARGIN
        fits = not at.over and predicted <= at.load.passes_hz
        return self._swap(at, self.rung - 1) if self._held("climb", fits, at.now_s, self._climb_s) else None

    def _await_swap(self, now_s: float) -> GovernorStep | None:
        assert self._swap_from
        late = now_s - self._swap_from[1] > SWAP_LIMIT_S
        return self.swap_failed(f"not loaded within {SWAP_LIMIT_S:.0f} s") if late else None

    def swap_failed(self, reason: str) -> GovernorStep | None:
        """The model of `rung` cannot be used: return to the one before, and do not try it again if it was a
        faster one."""
        if self._swap_from is None:
            return None
        failed, self.rung, self._swap_from = self.rung, self._swap_from[0], None
        if failed > self.rung:
            self.rungs = self.rungs[:failed]
        self.restart()
        return GovernorStep("rung", f"rung {failed} of the ladder cannot be used: {reason}")

    # Sentences.
    def _figures(self, at: _Situation) -> dict[str, float]:
        rate_hz = self.limit.rate_hz if self.limit else at.load.passes_hz
        return {
            "rate": rate_hz,
            "needed": at.load.needed_hz,
            "wait_ms": at.wait_ms(rate_hz),
            "delay_ms": at.promise.max_delay_ms,
            "fidelity": at.promise.min_fidelity,
        }

    def _trouble(self, at: _Situation) -> str:
        if self.level != "limited":
            return ""
        if self._unreachable:
            return self._unreachable_text(at)
        return f"{at.budget.cause}: {_LIMITED.format(**self._figures(at))}; {_REMEDY}"

    def _unreachable_text(self, at: _Situation) -> str:
        return (
            f"{at.budget.cause}: CPU is {at.load.cpu_percent:.1f} % although only one frame in max_blind_ms "
            f"{at.promise.max_blind_ms:.0f} is inferred; lower the camera's rate or resolution, or raise the "
            "limit"
        )


@dataclass(frozen=True, slots=True)
class _Situation:
    """What one update decides on. step_s: since the last one. ratio: of the load to the budget."""

    now_s: float
    step_s: float
    load: Load
    ratio: float
    budget: Budget
    promise: Promise
    cameras: int

    @property
    def over(self) -> bool:
        """Whether the load exceeds the budget."""
        return self.ratio > 1.0 + TOLERANCE

    @property
    def floor_hz(self) -> float:
        """Inferences that are never withheld: max_blind_ms."""
        return self.cameras * 1e3 / self.promise.max_blind_ms

    def wait_ms(self, rate_hz: float) -> float:
        """How long an object may wait for an inference at this rate: max_delay_ms at the needed one."""
        period_ms = 1e3 * self.cameras / max(self.load.frames_hz, _TINY)
        interval_ms = (self.promise.max_delay_ms + period_ms) * self.load.needed_hz / max(rate_hz, _TINY)
        return min(max(interval_ms - period_ms, self.promise.max_delay_ms), self.promise.max_blind_ms)

    def cause(self, above: bool) -> str:
        """Why a step is taken."""
        side = "above" if above else "within"
        cpu, budget = self.load.cpu_percent, self.budget
        return f"CPU {cpu:.1f} % is {side} the budget of {budget.percent:.1f} % ({budget.cause})"


_STRETCHED = (
    "min_fidelity {fidelity:g} is not kept: at most {rate:.1f} inferences/s, or as many as max_delay_ms "
    "{delay_ms:.0f} needs"
)
_LIMITED = (
    "max_delay_ms {delay_ms:.0f} is not kept: at most {rate:.1f} inferences/s, it needs {needed:.1f}, so an "
    "object may wait {wait_ms:.0f} ms"
)
_REMEDY = "raise the limit or max_delay_ms, or select a faster model"
