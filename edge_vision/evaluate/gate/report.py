"""The report on gates: lines on the screen, the headline, report.json and the table in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_vision.core.printable import printable
from edge_vision.evaluate.metrics.metric import Metric
from edge_vision.evaluate.results import count_met, failed
from edge_vision.evaluate.tables import ceiling, cell, columns, markdown_cell, markdown_table, screen_line

WIDTH, BASELINE_WIDTH = 10, 32
_COMPARED = ("delay_ms_p95", "frame_f1")


def heading(metrics: Sequence[Metric]) -> str:
    """The heading of the lines on the screen."""
    cells = ["events", "ceiling", *(metric.column for metric in columns(metrics))]
    return screen_line("condition", cells, _widths(metrics), "verdict")


def line(name: str, condition: Mapping[str, Any], gate: str, metrics: Sequence[Metric]) -> str:
    """One line: the figures of a gate, with the best baselines at its own share of inferred frames."""
    figures, checks = condition["methods"][gate], condition["verdict"][gate]
    missed = failed(checks)
    return screen_line(
        name if gate == "gate" else f"  {gate.rpartition(':')[2]}",
        [
            str(condition["events"]),
            ceiling(condition),
            *(cell(metric, figures, checks) for metric in columns(metrics)),
        ],
        _widths(metrics),
        "misses " + ", ".join(missed) if missed else "good",
    )


def _widths(metrics: Sequence[Metric]) -> list[int]:
    wide = [BASELINE_WIDTH if one.name in _COMPARED else WIDTH for one in columns(metrics)]
    return [6, 7, *(max(width, len(one.column)) for one, width in zip(columns(metrics), wide, strict=True))]


def headline(conditions: Mapping[str, Mapping[str, Any]]) -> str:
    """How often our gate meets its targets, in one line."""
    if not conditions:
        return "nothing was evaluated"
    checks = [condition["verdict"]["gate"] for condition in conditions.values()]
    events = sum(condition["events"] for condition in conditions.values())
    constructed = sum(bool(condition["constructed"]) for condition in conditions.values())
    met = {name: "{}/{}".format(*count_met(checks, name)) for name in checks[0]}
    return (
        f"{events} events in {len(checks)} conditions ({constructed} constructed): recall within 100 ms "
        f">= 99 % in {met['recall_100ms']}, p95 delay <= 1/3 of the best baseline's at an equal share of "
        f"inferred frames in {met['delay_ms_p95']}, frame F1 no worse in {met['frame_f1']}, inferred share "
        f"within its target in {met['inferred_share']}, worst gap within max_blind_ms in "
        f"{met['worst_gap_ms']}"
    )


def markdown(conditions: Mapping[str, Any], metrics: Sequence[Metric], gate: str = "gate") -> str:
    """One row per condition, with the best baselines in brackets; missed targets are bold."""
    shown = columns(metrics)
    rows = []
    for name, condition in conditions.items():
        figures, checks = condition["methods"][gate], condition["verdict"][gate]
        title = printable(name) + ("" if condition["constructed"] else " (clip)")
        cells = (markdown_cell(metric, figures, checks) for metric in shown)
        rows.append([title, str(condition["events"]), ceiling(condition), *cells])
    return markdown_table(
        ["condition", "events", "noise ceiling", *(metric.column for metric in shown)], rows
    )
