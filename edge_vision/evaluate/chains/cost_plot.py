"""The plot of the chains: recall and F1 over CPU cost, with the baselines as curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_vision.evaluate.chains.savings import BASELINES, at_cost
from edge_vision.evaluate.gate.plot import draw_panels, finish_panel

FIGURES = {"recall_100ms": "recall in 100 ms", "frame_f1": "frame F1"}
CURVES = {BASELINES[0]: "tab:green", BASELINES[1]: "tab:blue"}
MARKS = {
    "gate": ("s", "0.6"),
    "gate_tracking": ("D", "tab:orange"),
    "gate_cascade": ("v", "tab:purple"),
    "full": ("*", "tab:red"),
}


def draw(conditions: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write a PNG. Requires matplotlib."""
    draw_panels(conditions, path, list(FIGURES), _panel, (7.2, 2.7))


def _panel(axes: Any, condition: Mapping[str, Any], key: str, name: str) -> None:
    whole = condition["chains"]["every_frame"]["cpu_s_per_1000"]
    for baseline, color in CURVES.items():
        members = condition["sweep"][baseline]
        costs = sorted(one["cpu_s_per_1000"] for one in members)
        values = [at_cost(members, key, cost) for cost in costs]
        if None not in values:
            shares = [cost / whole for cost in costs]
            axes.plot(shares, values, "o-", ms=2.5, lw=1.2, color=color, label=baseline)
    for chain, (marker, color) in MARKS.items():
        one = condition["chains"][chain]
        if one[key] is not None:
            size = 15 if chain == "full" else 6
            share = one["cpu_s_per_1000"] / whole
            axes.plot(share, one[key], marker, ms=size, color=color, mec="black", label=chain)
    axes.set_xlim(0, 1.22)
    axes.set_ylim(-0.03, 1.05)
    finish_panel(axes, f"{name}, {condition['events']} events", "CPU, every frame = 1", FIGURES[key])
