"""The plots of the report as SVG. Imports matplotlib when used."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import cycle
from typing import Any

from edge_vision.optimize.candidates.pareto import time_agreement_front
from edge_vision.optimize.quantization.sensitivity import Sensitivity
from edge_vision.optimize.report.report_file import StudyReport
from edge_vision.optimize.results import CandidateResult

WIDE_IN, NARROW_IN = (7.6, 4.4), (3.9, 4.8)
"""Figure sizes for a desktop and for a phone."""
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's palette, which colour-blind readers can distinguish."""
_GREY, _RED, _GREEN = "#888888", "#b00000", "#15803d"


def pareto_svg(report: StudyReport, size_in: tuple[float, float]) -> str:
    """`pareto_figure` as SVG, "" without a measurement."""
    return _svg(pareto_figure(report, size_in)) if any(one.measurement for one in report.results) else ""


def pareto_figure(report: StudyReport, size_in: tuple[float, float]) -> Any:
    """All measured candidates, the Pareto front over time and agreement, and labels for two candidates:
    the chosen one (or the nearest) and the runner-up."""
    measured = [result for result in report.results if result.measurement]
    figure = _figure(size_in)
    axes = figure.add_subplot()
    backends = list(dict.fromkeys(result.backend for result in measured))
    for backend, color in zip(backends, cycle(_COLORS), strict=False):
        points = _points([result for result in measured if result.backend == backend])
        axes.scatter(*points, s=42, color=color, alpha=0.75, linewidths=0, label=backend, zorder=2)
    front = time_agreement_front([result for result in measured if result.id in report.decision.front])
    axes.plot(*_points(front), color=_GREY, drawstyle="steps-post", zorder=1, label="Pareto front")
    bound = report.settings.min_agreement
    axes.axhline(bound, color=_RED, linestyle="--", linewidth=1, zorder=0, label=f"bound {bound:g}")
    metric = {"f1": "F1", "top1": "top-1"}[measured[0].measured.agreement.metric]
    axes.set(xlabel="time, share of the baseline's", ylabel=f"agreement ({metric})")
    axes.set_xlim(left=0)
    axes.margins(x=0.08, y=0.2)
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    _label_decision(axes, report)
    figure.legend(loc="outside lower center", ncols=4 if size_in == WIDE_IN else 2, frameon=False, fontsize=9)
    return figure


def _points(results: Sequence[CandidateResult]) -> tuple[list[float], list[float]]:
    return [one.relative for one in results], [one.agreement for one in results]


def _label_decision(axes: Any, report: StudyReport) -> None:
    """Label two candidates: the upper one above its point, the other below, so that labels cannot overlap."""
    decision = report.decision
    names = {"chosen": decision.chosen, "nearest": decision.nearest, "runner-up": decision.runner_up}
    labelled = [(title, report.result(name)) for title, name in names.items() if name]
    highest = max((result.agreement for _, result in labelled), default=0.0)
    upper = next((result for _, result in labelled if result.agreement == highest), None)
    for title, result in labelled:
        point, above = (result.relative, result.agreement), result is upper
        color = _GREY if title == "runner-up" else _GREEN
        axes.scatter(*point, s=150, facecolors="none", edgecolors=color, linewidths=2)
        right = result.relative > 0.5 * axes.get_xlim()[1]
        axes.annotate(
            f"{title}\n{result.backend} {result.precision} {result.size}",
            point,
            xytext=(6 if right else -6, 12 if above else -12),
            textcoords="offset points",
            ha="right" if right else "left",
            va="bottom" if above else "top",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
        )


def layer_sensitivity(sensitivity: Sensitivity, size_in: tuple[float, float]) -> str:
    """The SQNR of the outputs with each layer alone in int8, in graph order; layers that stay in fp32 in
    another colour. Returns SVG."""
    figure = _figure((size_in[0], 2.6))
    axes = figure.add_subplot()
    kept = set(sensitivity.fp32_layers)
    for members, color, label in (
        ([layer for layer in sensitivity.layers if layer.name not in kept], _COLORS[0], "int8"),
        ([layer for layer in sensitivity.layers if layer.name in kept], _COLORS[1], "fp32 in mixed"),
    ):
        if members:
            positions, heights = [one.position + 1 for one in members], [one.sqnr_db for one in members]
            axes.bar(positions, heights, color=color, label=label)
    axes.set(xlabel="layer, in graph order", ylabel="SQNR, dB")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(x=0.01)
    figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    return _svg(figure)


def _figure(size_in: tuple[float, float]) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=size_in, layout="constrained")


def _svg(figure: Any) -> str:
    """The figure as SVG, the same bytes for the same figure."""
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.hashsalt": "edge_vision"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
