"""Tables of the reports: on the screen, and in Markdown for the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from edge_vision.core.printable import printable
from edge_vision.evaluate.metrics.metric import Metric
from edge_vision.evaluate.results import TargetCheck, failed

NAME_WIDTH, WIDTH = 24, 10


class MethodRow(NamedTuple):
    """A method on a condition. figures: of the method. checks: its targets, empty if it has none."""

    name: str
    method: str
    condition: Mapping[str, Any]
    figures: Mapping[str, Any]
    checks: Mapping[str, TargetCheck]

    def start(self) -> list[str]:
        """The events and the noise ceiling of the condition."""
        value = self.condition["noise_ceiling"]
        return [str(self.condition["events"]), "n/a" if value is None else f"{value:.3f}"]

    def missed(self) -> str:
        """The targets that are not met; "" if all are."""
        return ", ".join(failed(self.checks))


def _columns(metrics: Sequence[Metric]) -> list[Metric]:
    """The metrics that have a column in tables."""
    return [metric for metric in metrics if metric.column]


def heading(metrics: Sequence[Metric]) -> str:
    """The heading of the lines on the screen."""
    cells = ["events", "ceiling", *(metric.column for metric in _columns(metrics))]
    return screen_line("condition", cells, _widths(metrics), "verdict")


def line(row: MethodRow, metrics: Sequence[Metric]) -> str:
    """A method on the screen."""
    cells = [*row.start(), *(metric.text(row.figures[metric.name]) for metric in _columns(metrics))]
    missed = row.missed()
    verdict = f"misses {missed}" if missed else "good"
    return screen_line(row.name, cells, _widths(metrics), f"{row.method}: {verdict}")


def _widths(metrics: Sequence[Metric]) -> list[int]:
    return [6, 7, *(max(WIDTH, len(metric.column)) for metric in _columns(metrics))]


def markdown(rows: Sequence[MethodRow], metrics: Sequence[Metric]) -> str:
    """A table of methods, with the best baselines in brackets; missed targets are bold."""
    shown = _columns(metrics)
    headings = ["condition", "method", "events", "noise ceiling", *(one.column for one in shown), "missed"]
    lines = [
        [
            printable(row.name) + ("" if row.condition["constructed"] else " (clip)"),
            row.method,
            *row.start(),
            *(_cell(metric, row) for metric in shown),
            row.missed() or "-",
        ]
        for row in rows
    ]
    return markdown_table(headings, lines)


def _cell(metric: Metric, row: MethodRow) -> str:
    """The value of a metric, and in brackets the best baseline that it is compared with."""
    text, check = metric.text(row.figures[metric.name]), row.checks.get(metric.name)
    if check and (baseline := check["baseline"]):
        text = f"{text} ({metric.text(baseline[1])} {baseline[0]})"
    return f"**{text}**" if check and check["met"] is False else text


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
