"""The plot of a report: delay and F1 over the share of inferred frames, two panels per condition."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping
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
    rows = -(-len(conditions) // PAIRS_PER_ROW)
    figure = figure_of(7.6 * PAIRS_PER_ROW, 3.0 * rows + 0.8)
    axes = figure.subplots(rows, 2 * PAIRS_PER_ROW, squeeze=False)
    for at, (name, condition) in enumerate(conditions.items()):
        row, pair = divmod(at, PAIRS_PER_ROW)
        for side, key in enumerate(FIGURES):
            _panel(axes[row, 2 * pair + side], condition, key, name)
    for empty in axes.flat[2 * len(conditions) :]:
        empty.set_axis_off()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=90)


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
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=7)
    axes.set_title(f"{name}, {condition['events']} events", fontsize=9, loc="left")
    axes.set_xlabel("share of inferred frames", fontsize=7)
    axes.set_ylabel(FIGURES[key], fontsize=7)
