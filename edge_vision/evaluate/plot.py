"""The plots of the reports: figures over the share of inferred frames, or over CPU cost."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from edge_vision.bundles.store import cache_dir
from edge_vision.evaluate.chains.savings import BASELINES, at_cost
from edge_vision.evaluate.gate.verdict import family_curve

PAIRS_PER_ROW = 3
COLORS = {
    "fixed": "0.65",
    "fixed_tracker": "tab:blue",
    "fixed_tracker_cmc": "tab:green",
    "mog2": "tab:orange",
    "running_average_a": "tab:purple",
    "running_average_b": "tab:brown",
    "running_average_c": "tab:pink",
}

CURVES = {BASELINES[0]: "tab:green", BASELINES[1]: "tab:blue"}
MARKS = {
    "gate": ("s", "0.6"),
    "gate_tracking": ("D", "tab:orange"),
    "gate_cascade": ("v", "tab:purple"),
    "full": ("*", "tab:red"),
}
Condition = Mapping[str, Any]


def missing_package(command: str) -> str | None:
    """How to install matplotlib; None if it is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return f"no plot: package matplotlib is not installed; pip install matplotlib, or run {command}"
    return None


def figure_of(width_in: float, height_in: float) -> Any:
    """A matplotlib figure, imported late as it is optional. Its font index goes to our cache."""
    os.environ.setdefault("MPLCONFIGDIR", str(cache_dir() / "matplotlib"))
    drawing: Any = importlib.import_module("matplotlib.figure")
    return drawing.Figure(figsize=(width_in, height_in), layout="constrained")


class Panels(NamedTuple):
    """A plot with a panel per figure and condition.

    figures: key -> label. draw_panel: draws a figure of a condition on axes, given its key and the title.
    x_label: of all. pair_in: width and height of two panels in inches.
    """

    figures: Mapping[str, str]
    draw_panel: Callable[[Any, Condition, str], None]
    x_label: str
    pair_in: tuple[float, float]

    def draw(self, conditions: Mapping[str, Condition], path: Path) -> None:
        """Write a PNG. Requires matplotlib."""
        rows = -(-len(conditions) // PAIRS_PER_ROW)
        figure = figure_of(self.pair_in[0] * PAIRS_PER_ROW, self.pair_in[1] * rows + 0.8)
        axes = figure.subplots(rows, 2 * PAIRS_PER_ROW, squeeze=False)
        for at, (name, condition) in enumerate(conditions.items()):
            row, pair = divmod(at, PAIRS_PER_ROW)
            for side, key in enumerate(self.figures):
                panel = axes[row, 2 * pair + side]
                self.draw_panel(panel, condition, key)
                panel.grid(alpha=0.25)
                panel.tick_params(labelsize=7)
                panel.set_title(f"{name}, {condition['events']} events", fontsize=9, loc="left")
                panel.set_xlabel(self.x_label, fontsize=7)
                panel.set_ylabel(self.figures[key], fontsize=7)
        for empty in axes.flat[2 * len(conditions) :]:
            empty.set_axis_off()
        # The first condition may lack some of the marks in one of its panels.
        legend: dict[str, Any] = {}
        for side in axes[0, :2]:
            handles, labels = side.get_legend_handles_labels()
            legend |= dict(zip(labels, handles, strict=True))
        figure.legend(legend.values(), legend, loc="outside lower center", ncols=len(legend), frameon=False)
        figure.savefig(path, dpi=90)


def _gate_panel(axes: Any, condition: Condition, key: str) -> None:
    methods = condition["methods"]
    for family, color in COLORS.items():
        curve = family_curve(methods, family, key)
        if curve:
            x, y = zip(*curve, strict=True)
            style, size = ("o-", 2.5) if len(curve) > 1 else ("s", 5)
            axes.plot(x, y, style, ms=size, lw=1.2, color=color, label=family)
    for gate in condition["verdict"]:
        ours = methods[gate]
        if ours[key] is not None:
            marker, size = ("*", 15) if gate == "gate" else ("P", 9)
            axes.plot(
                ours["inferred_share"], ours[key], marker, ms=size, color="tab:red", mec="black", label=gate
            )
    if key == "delay_ms_p95" and condition["events"]:
        axes.set_yscale("symlog", linthresh=30)
        axes.set_ylim(-3, None)
    axes.set_xlim(0, 1.02)


def _cost_panel(axes: Any, condition: Condition, key: str) -> None:
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


PANELS = {
    "gate": Panels(
        {"delay_ms_p95": "p95 delay (ms)", "frame_f1": "frame F1"},
        _gate_panel,
        "share of inferred frames",
        (7.6, 3.0),
    ),
    "cascade": Panels(
        {"recall_100ms": "recall in 100 ms", "frame_f1": "frame F1"},
        _cost_panel,
        "CPU, every frame = 1",
        (7.2, 2.7),
    ),
}
