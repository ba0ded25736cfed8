"""Tables of the reports: on the screen, and in Markdown for the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_vision.evaluate.metrics.metric import Metric
from edge_vision.evaluate.results import TargetCheck

NAME_WIDTH = 24


def columns(metrics: Sequence[Metric]) -> list[Metric]:
    """The metrics that have a column in tables."""
    return [metric for metric in metrics if metric.column]


def ceiling(condition: Mapping[str, Any]) -> str:
    """The noise ceiling of a condition."""
    value = condition["noise_ceiling"]
    return "n/a" if value is None else f"{value:.3f}"


def cell(metric: Metric, figures: Mapping[str, Any], checks: Mapping[str, TargetCheck]) -> str:
    """The value of a metric, and in brackets the best baseline that it is compared with."""
    text = metric.text(figures[metric.name])
    baseline = checks[metric.name]["baseline"] if metric.name in checks else None
    return f"{text} ({metric.text(baseline[1])} {baseline[0]})" if baseline else text


def markdown_cell(metric: Metric, figures: Mapping[str, Any], checks: Mapping[str, TargetCheck]) -> str:
    """As `cell`, bold if a target is missed."""
    text = cell(metric, figures, checks)
    return f"**{text}**" if metric.name in checks and checks[metric.name]["met"] is False else text


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (headings, ["---"] * len(headings), *rows))


def screen_line(
    name: str, cells: Sequence[str], widths: Sequence[int], last: str, name_width: int = NAME_WIDTH
) -> str:
    """One line with aligned columns; the last column is open."""
    aligned = "".join(f"{text:>{width + 2}}" for text, width in zip(cells, widths, strict=True))
    return f"{name:<{name_width}}{aligned}  {last}"


def metrics_table(metrics: Sequence[Metric]) -> str:
    """The description of all metrics in Markdown."""
    rows = [[f"`{one.name}`", one.unit, one.better or "-", one.doc] for one in metrics]
    return markdown_table(["metric", "unit", "better", "meaning"], rows)
