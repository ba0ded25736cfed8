"""The plot of a report: delay and F1 over the share of inferred frames, a panel per key and condition."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_vision.bundles.store import cache_dir
from edge_vision.evaluate.gate.verdict import family_curve

PAIRS_PER_ROW = 3
FIGURES = {"delay_ms_p95": "p95 delay (ms)", "frame_f1": "frame F1"}
COLORS = {
    "fixed": "0.65",
    "fixed_tracker": "tab:blue",
    "fixed_tracker_cmc": "tab:green",
    "mog2": "tab:orange",
    "running_average_a": "tab:purple",
    "running_average_b": "tab:brown",
    "running_average_c": "tab:pink",
}


def missing_package(command: str = "make evaluate-gate") -> str | None:
    """How to install matplotlib; None if it is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return f"no plot: package matplotlib is not installed; pip install matplotlib, or run {command}"
    return None


def figure_of(width_in: float, height_in: float) -> Any:
    """A matplotlib figure, imported late as it is optional. Its font index goes to our cache."""
    os.environ.setdefault("MPLCONFIGDIR", str(cache_dir() / "matplotlib"))
    drawing: Any = importlib.import_module("matplotlib.figure")
    return drawing.Figure(figsize=(width_in, height_in), layout="constrained")


def draw(conditions: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write a PNG. Requires matplotlib."""
    draw_panels(conditions, path, list(FIGURES), _panel, (7.6, 3.0))


def draw_panels(
    conditions: Mapping[str, Mapping[str, Any]],
    path: Path,
    keys: Sequence[str],
    panel: Callable[[Any, Mapping[str, Any], str, str], None],
    pair_in: tuple[float, float],
) -> None:
    """Write a PNG with a panel per key and condition. Requires matplotlib.

    panel: draws a figure of a condition on axes, given its key and the name of the condition. pair_in: width
    and height of two panels in inches.
    """
    rows = -(-len(conditions) // PAIRS_PER_ROW)
    figure = figure_of(pair_in[0] * PAIRS_PER_ROW, pair_in[1] * rows + 0.8)
    axes = figure.subplots(rows, 2 * PAIRS_PER_ROW, squeeze=False)
    for at, (name, condition) in enumerate(conditions.items()):
        row, pair = divmod(at, PAIRS_PER_ROW)
        for side, key in enumerate(keys):
            panel(axes[row, 2 * pair + side], condition, key, name)
    for empty in axes.flat[2 * len(conditions) :]:
        empty.set_axis_off()
    # The first condition may lack some of the marks in one of its panels.
    legend: dict[str, Any] = {}
    for side in axes[0, :2]:
        handles, labels = side.get_legend_handles_labels()
        legend |= dict(zip(labels, handles, strict=True))
    figure.legend(legend.values(), legend, loc="outside lower center", ncols=len(legend), frameon=False)
    figure.savefig(path, dpi=90)


def finish_panel(axes: Any, title: str, x_label: str, y_label: str) -> None:
    """Add grid, title and labels to a panel."""
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=7)
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel(x_label, fontsize=7)
    axes.set_ylabel(y_label, fontsize=7)


def _panel(axes: Any, condition: Mapping[str, Any], key: str, name: str) -> None:
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
    finish_panel(axes, f"{name}, {condition['events']} events", "share of inferred frames", FIGURES[key])
