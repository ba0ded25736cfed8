"""The plot of a fit: what each threshold keeps and rejects, and the chosen one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_vision.evaluate.plot import figure_of


def draw(fitted: dict[str, Any], reject_below: float, path: Path) -> None:
    """Write a PNG. Requires matplotlib."""
    figure = figure_of(6.4, 4.0)
    axes = figure.subplots()
    _, kept, rejected = zip(*fitted["curve"], strict=True)
    axes.plot(rejected, kept, "o-", ms=2.5, lw=1.2, color="tab:blue", label="each threshold")
    chosen = [row for row in fitted["curve"] if row[0] <= reject_below]
    if chosen:
        axes.plot(chosen[-1][2], chosen[-1][1], "*", ms=15, color="tab:red", mec="black", label="chosen")
    axes.axhline(fitted["recall"], color="0.5", lw=0.8, ls="--")
    text = f"recall {fitted['recall']:g}, with {fitted['confidence']:g} confidence"
    axes.annotate(text, (0.01, fitted["recall"]), fontsize=8, va="bottom")
    axes.set_xlabel("rejected share of crops without a wanted object")
    axes.set_ylabel(f"kept share of {fitted['events']} events")
    axes.set_xlim(0, 1.02)
    axes.grid(alpha=0.25)
    axes.legend(loc="lower left", frameon=False)
    figure.savefig(path, dpi=100)
