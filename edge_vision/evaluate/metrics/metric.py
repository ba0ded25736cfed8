"""A metric: one class that describes and computes one figure of a method on a condition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

from edge_vision.evaluate.condition_data import ConditionData
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.metrics.delays import EventDelay, event_delay
from edge_vision.evaluate.plugins import load_attribute
from edge_vision.evaluate.simulation import Published

Figures = Mapping[str, float | None]
"""Metric name -> value, None where nothing can be measured."""


@dataclass(frozen=True, slots=True, eq=False)
class Cost:
    """Cost of the decisions. decision_ms: wall time of each, empty if none; cpu_s: of all frames."""

    decision_ms: Sequence[float] = ()
    cpu_s: float = 0.0


@dataclass(frozen=True, eq=False)
class MethodRun:
    """One method on one condition: what it published, what that cost, and what it is compared with."""

    data: ConditionData
    published: Published
    cost: Cost

    @cached_property
    def delays(self) -> list[EventDelay]:
        """The delay of each event, in order."""
        return [event_delay(event, self.published.detections, self.data) for event in self.data.events]


class Metric(ABC):
    """One figure. Conditions are never pooled.

    name: key in report.json. column: heading in tables; empty: in report.json only. unit: selects the format.
    better: which direction is better, None for a description. doc: one sentence for the documentation.
    """

    name: str
    column: str = ""
    unit: Literal["share", "ratio", "ms", "s", "frames", "count"]
    better: Literal["higher", "lower"] | None
    doc: str

    FORMATS: ClassVar[Mapping[str, str]] = {
        "share": "{:.1%}",
        "ratio": "{:.3f}",
        "ms": "{:.0f} ms",
        "s": "{:.2f} s",
    }

    @abstractmethod
    def compute(self, run: MethodRun) -> float | None:
        """The value; None where nothing can be measured, as a recall without events."""

    def text(self, value: float | None) -> str:
        """The value for a table."""
        if value is None:
            return "n/a"
        return self.FORMATS.get(self.unit, "{:.0f}").format(value).replace("%", " %")


def load_metrics(builtin: Sequence[Metric], paths: Sequence[str]) -> tuple[Metric, ...]:
    """The built-in metrics, and those at "module:Class" paths. Raises EvaluateError."""
    metrics = list(builtin)
    for path in paths:
        metric_class = load_attribute(path, "metric")
        if not (isinstance(metric_class, type) and issubclass(metric_class, Metric)):
            raise EvaluateError(f"metric '{path}': expected a subclass of Metric, got {metric_class!r:.100}")
        try:
            metric = metric_class()
        except Exception as error:  # Third-party code may raise anything.
            raise EvaluateError(
                f"metric '{path}' cannot be made without arguments: {type(error).__name__}: {error}"
            ) from error
        if metric.name in {known.name for known in metrics}:
            raise EvaluateError(f"metric '{path}': the name '{metric.name}' is taken; choose another")
        metrics.append(metric)
    return tuple(metrics)


def compute_all(metrics: Sequence[Metric], run: MethodRun) -> dict[str, float | None]:
    """The figures of one method. Raises EvaluateError if a metric fails."""
    figures = {}
    for metric in metrics:
        try:
            figures[metric.name] = metric.compute(run)
        except Exception as error:  # Third-party code may raise anything.
            raise EvaluateError(
                f"metric '{metric.name}' failed: {type(error).__name__}: {error}; correct it or leave it out"
            ) from error
    return figures
