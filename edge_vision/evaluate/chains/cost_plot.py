"""The plot of the chains: recall and F1 over CPU cost, with the baselines as curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_vision.evaluate.chains.savings import BASELINES, at_cost
from edge_vision.evaluate.gate.plot import figure_of

PAIRS_PER_ROW = 3
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
    rows = -(-len(conditions) // PAIRS_PER_ROW)
    figure = figure_of(7.2 * PAIRS_PER_ROW, 2.7 * rows + 0.8)
    axes = figure.subplots(rows, 2 * PAIRS_PER_ROW, squeeze=False)
    for at, (name, condition) in enumerate(conditions.items()):
        row, pair = divmod(at, PAIRS_PER_ROW)
        for side, key in enumerate(FIGURES):
            _panel(axes[row, 2 * pair + side], condition, key, name)
    for empty in axes.flat[2 * len(conditions) :]:
        empty.set_axis_off()
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=90)


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
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=7)
    axes.set_title(f"{name}, {condition['events']} events", fontsize=9, loc="left")
    axes.set_xlabel("CPU, every frame = 1", fontsize=7)
    axes.set_ylabel(FIGURES[key], fontsize=7)
