"""The picture of a simulated fleet, for docs/fleet.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def draw(result: dict[str, Any], path: Path) -> None:
    """A good release and a bad one; the time to read all reports; the series of a Prometheus server."""
    figure, (rollout, reports, series) = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    _rollout(rollout, result)
    _reports(reports, result["reports"])
    _series(series, result)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _rollout(axes: Any, result: dict[str, Any]) -> None:
    robots, found = result["robots"], result["rollouts"]
    shares = np.linspace(0, 1, len(found["curve_h"]))
    axes.plot(found["curve_h"], shares * robots, color="tab:green", label="good release, in stages")
    for name, color, label in (("stages", "tab:blue", "in stages"), ("at_once", "tab:red", "to all at once")):
        bad = found[name]["0.33"]
        axes.plot(bad["halted_h"], bad["installs"], "o", color=color)
        text = f"bad one {label}:\nhalted at {bad['installs']:.0f}"
        axes.annotate(
            text, (bad["halted_h"], bad["installs"]), (8, -4), textcoords="offset points", fontsize=8
        )
    axes.set(yscale="log", ylim=(1, 2 * robots), xlabel="hours", ylabel="robots with the release")
    axes.legend(fontsize=8, loc="lower right")


def _reports(axes: Any, found: dict[str, Any]) -> None:
    axes.plot(
        list(found["read_s"]), list(found["read_s"].values()), "o-", label="read and add up all reports"
    )
    axes.axhline(300, color="gray", linestyle=":", label="the timer's 5 minutes")
    axes.axvline(found["limit"], color="tab:red", linestyle="--", label="limit of one folder")
    axes.set(xscale="log", yscale="log", xlabel="report files (robots x cameras)", ylabel="CPU seconds")
    axes.legend(fontsize=8)


def _series(axes: Any, result: dict[str, Any]) -> None:
    metrics = result["metrics"]
    robots = np.array([100, 1000, 10_000, 100_000])
    axes.plot(robots, robots * metrics["mb_per_target"] / 1e3, "o-", label="memory of one Prometheus, GB")
    for interval_s in (5, 60):
        cores = robots * metrics["cpu_ms_per_scrape"] / 1e3 / interval_s
        axes.plot(robots, cores, "s--", label=f"its cores, scrape every {interval_s} s")
    axes.axvline(result["robots"], color="gray", linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="robots with one camera", ylabel="GB, cores")
    axes.legend(fontsize=8)
