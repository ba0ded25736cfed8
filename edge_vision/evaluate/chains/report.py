"""The report on chains: lines on the screen, the headline, report.json and the tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from edge_vision.core.printable import printable
from edge_vision.evaluate.chains.savings import BASELINES, GROUPS, group_of
from edge_vision.evaluate.metrics.metric import Metric
from edge_vision.evaluate.results import count_met, failed
from edge_vision.evaluate.tables import (
    ceiling,
    columns,
    markdown_cell,
    markdown_table,
    screen_line,
)

ConditionEntry = Mapping[str, Any]
CHAINS = {
    "every_frame": "every frame",
    "fixed_interval_tracker": "fixed interval + tracker at the recall of *full*",
    "gate": "gate",
    "gate_tracking": "gate, tracking",
    "gate_cascade": "gate, cascade",
    "full": "full",
}
WIDTH = 10
_CHAINS_TABLE = ("cpu_s_per_1000", "inferred_share", "recall_100ms", "frame_f1")
_BASELINE_HEADING = "baseline at equal recall"


def times_cheaper(condition: ConditionEntry, chain: str) -> float:
    """CPU of the every-frame detector divided by that of a chain."""
    chains = condition["chains"]
    return float(chains["every_frame"]["cpu_s_per_1000"] / chains[chain]["cpu_s_per_1000"])


def heading(metrics: Sequence[Metric]) -> str:
    """The heading of the lines on the screen."""
    cells = ["events", "ceiling", *(one.column for one in columns(metrics)), "cheaper", _BASELINE_HEADING]
    return screen_line("condition", cells, _widths(metrics), "verdict")


def line(name: str, condition: ConditionEntry, metrics: Sequence[Metric]) -> str:
    """One line: the whole chain, and the baseline at equal recall."""
    full, missed = condition["chains"]["full"], failed(condition["checks"])
    cells = [
        str(condition["events"]),
        ceiling(condition),
        *(metric.text(full[metric.name]) for metric in columns(metrics)),
        f"{times_cheaper(condition, 'full'):.1f}x",
        _baseline(condition),
    ]
    return screen_line(name, cells, _widths(metrics), "misses " + ", ".join(missed) if missed else "good")


def _widths(metrics: Sequence[Metric]) -> list[int]:
    shown = [max(WIDTH, len(one.column)) for one in columns(metrics)]
    return [6, 7, *shown, 7, len(_BASELINE_HEADING)]


def _baseline(condition: ConditionEntry) -> str:
    interval = condition["chains"]["fixed_interval_tracker"]["interval_frames"]
    return f"{times_cheaper(condition, 'fixed_interval_tracker'):.1f}x (1 in {interval})"


def headline(conditions: Mapping[str, ConditionEntry]) -> str:
    """Savings at equal recall, in one line: medians over the conditions of a group."""
    if not conditions:
        return "nothing was evaluated"
    groups = []
    for group in GROUPS:
        members = [one for one in conditions.values() if group_of(one["kind"]) == group]
        if members:
            ours, baseline = (
                median(times_cheaper(one, chain) for one in members)
                for chain in ("full", "fixed_interval_tracker")
            )
            groups.append(f"{group} {ours:.1f}x ({baseline:.1f}x)")
    met, known = count_met([one["checks"] for one in conditions.values()], "recall_100ms")
    return (
        "CPU saved by the whole chain against the detector on every frame (in brackets: fixed interval + "
        f"tracker at that recall): {', '.join(groups) or 'no condition with a target'}; "
        f"recall within 100 ms >= 99 % in {met} of {known} conditions"
    )


def markdown(conditions: Mapping[str, ConditionEntry], metrics: Sequence[Metric]) -> str:
    """The whole chain on each condition, missed targets bold; then all chains on each condition."""
    return f"{_full_table(conditions, metrics)}\n{_chains_table(conditions, metrics)}"


def _full_table(conditions: Mapping[str, ConditionEntry], metrics: Sequence[Metric]) -> str:
    shown = columns(metrics)
    rows = []
    for name, condition in conditions.items():
        full, checks = condition["chains"]["full"], condition["checks"]
        cheaper = f"{times_cheaper(condition, 'full'):.1f}"
        every_id_switches = condition["sweep"][BASELINES[0]][0]["id_switches"]
        rows.append(
            [
                printable(name) + ("" if condition["constructed"] else " (clip)"),
                str(condition["events"]),
                ceiling(condition),
                *(markdown_cell(metric, full, checks) for metric in shown),
                f"**{cheaper}**" if checks["times_cheaper"]["met"] is False else cheaper,
                _baseline(condition).replace("x", ""),
                f"{every_id_switches}",
                ", ".join(key for key in failed(checks) if key.endswith("equal_cost")) or "-",
            ]
        )
    headings = [
        "condition",
        "events",
        "noise ceiling",
        *(metric.column for metric in shown),
        "times cheaper",
        _BASELINE_HEADING,
    ]
    return markdown_table([*headings, "id switches, tracker on every frame", "worse at equal cost"], rows)


def _chains_table(conditions: Mapping[str, ConditionEntry], metrics: Sequence[Metric]) -> str:
    """CPU seconds per 1000 frames, inferred share, recall and frame F1 of every chain."""
    shown = [metric for metric in metrics if metric.name in _CHAINS_TABLE]
    shown.sort(key=lambda metric: _CHAINS_TABLE.index(metric.name))
    rows = [
        [
            printable(name),
            *(
                ", ".join(metric.text(condition["chains"][chain][metric.name]) for metric in shown)
                for chain in CHAINS
            ),
        ]
        for name, condition in conditions.items()
    ]
    return markdown_table(["condition", *CHAINS.values()], rows)
