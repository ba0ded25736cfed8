"""Estimates the remaining time of an evaluation from the steps that its processes report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

INITIAL_STEP_S = {"detect": 0.030, "analyse": 0.012, "simulate": 0.12}
"""Phase -> assumed seconds of a step before any was measured: per frame, per frame, per method."""
PHASES = tuple(INITIAL_STEP_S)


@dataclass(frozen=True, slots=True)
class StepReport:
    """Steps of one phase that a process finished in `seconds`."""

    condition: str
    phase: str
    count: int
    seconds: float


@dataclass(slots=True)
class ProgressEstimate:
    """Remaining steps per condition and phase, and the measured duration of a step."""

    jobs: int
    remaining: dict[str, dict[str, int]]
    finished: int = 0
    _done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    _took_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    _started: set[str] = field(default_factory=set)

    def add(self, reports: Iterable[StepReport]) -> None:
        """Count finished steps."""
        for report in reports:
            remaining = self.remaining[report.condition]
            # A later phase implies that the earlier ones are complete: their results came from the cache.
            for earlier in PHASES[: PHASES.index(report.phase)]:
                remaining[earlier] = 0
            remaining[report.phase] = max(0, remaining[report.phase] - report.count)
            self._done[report.phase] += report.count
            self._took_s[report.phase] += report.seconds
            self._started.add(report.condition)

    def finish(self, condition: str) -> None:
        """Count a condition as complete."""
        self.remaining[condition] = dict.fromkeys(PHASES, 0)
        self.finished += 1

    def eta_s(self) -> float:
        """Estimated remaining seconds."""
        return sum(self._left_s(remaining) for remaining in self.remaining.values()) / self.jobs

    def _left_s(self, remaining: Mapping[str, int]) -> float:
        return sum(
            n * (self._took_s[phase] / self._done[phase] if self._done[phase] else INITIAL_STEP_S[phase])
            for phase, n in remaining.items()
        )

    def text(self) -> str:
        """One line: finished conditions, remaining time, and the phase of each running condition."""
        running = [
            f"{name} {next(phase for phase in PHASES if remaining[phase])}"
            for name, remaining in self.remaining.items()
            if name in self._started and any(remaining.values())
        ]
        minutes, seconds = divmod(round(self.eta_s()), 60)
        return (
            f"{self.finished}/{len(self.remaining)} conditions, {minutes}:{seconds:02d} left; "
            + ", ".join(running)
        )
