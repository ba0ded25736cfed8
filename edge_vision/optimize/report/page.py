"""report.html: a self-contained page. Imports jinja2 and matplotlib when used."""

from __future__ import annotations

import base64
import importlib.util
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_vision.bundles.store import load_bundle
from edge_vision.core.missing_package import install_command
from edge_vision.core.printable import printable_lines
from edge_vision.optimize.agreement import CONFIDENT_MARGIN
from edge_vision.optimize.candidate import LIBRARY_DEFAULT
from edge_vision.optimize.candidates.table import predictions_file
from edge_vision.optimize.data.dataset import EVALUATION
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization.sensitivity import Sensitivity
from edge_vision.optimize.report import plot, terminal
from edge_vision.optimize.report.differences import ImageDifference, image_differences
from edge_vision.optimize.report.report_file import StudyReport, write_text
from edge_vision.optimize.results import CandidateResult, only_classes

FILE = "report.html"
_TEMPLATES = Path(__file__).with_name("templates")
_PACKAGES = ("jinja2", "matplotlib")


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table, for measured candidates."""

    title: str
    text: Callable[[CandidateResult], str]


_COLUMNS = (
    _Column("p50 ms", lambda one: f"{one.measured.timing.p50_ms:.2f}"),
    _Column("p95", lambda one: f"{one.p95_ms:.2f}"),
    _Column("p99", lambda one: f"{one.measured.timing.p99_ms:.2f}"),
    _Column("of parent", lambda one: f"{one.measured.timing.ratio_to_parent:.2f}"),
    _Column("of baseline", lambda one: f"{one.relative:.2f}"),
    _Column("agreement", lambda one: f"{one.agreement:.3f}"),
    _Column("score shift", lambda one: f"{one.measured.agreement.score_shift:+.3f}"),
    _Column("RSS MB", lambda one: f"{one.measured.rss_mb:.0f}"),
    _Column("cold s", lambda one: f"{one.measured.cold_start_s:.1f}"),
    _Column("file MB", lambda one: f"{one.file_bytes / 1e6:.1f}"),
)
_OPTIONAL_COLUMNS = (
    _Column("confident", lambda one: _optional(one.measured.agreement.confident_value)),
    _Column("mAP", lambda one: _optional(getattr(one.measured.mean_ap, "map", None))),
    _Column("mAP .5", lambda one: _optional(getattr(one.measured.mean_ap, "map50", None))),
)


def check_installed() -> None:
    """Raise OptimizeError if a package of the report is missing."""
    missing = [name for name in _PACKAGES if not _installed(name)]
    if missing:
        raise OptimizeError(f"the report needs {' and '.join(missing)}: {install_command(*missing)}")


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # sys.modules[name] is None: its import is blocked.
        return False


def write_page(folder: Path, report: StudyReport) -> Path:
    """Write report.html beside report.json. Raises DiskFull, OptimizeError."""
    check_installed()
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.j2").render(
        report=report,
        verdict=terminal.verdict(report),
        front=_embedded(lambda size_in: plot.pareto_svg(report, size_in)),
        columns=_columns(report),
        sensitivity=_sensitivity(report.sensitivity) if report.sensitivity else None,
        differences=_differences(folder, report),
        margin=f"{CONFIDENT_MARGIN:g}",
        facts=_facts(report),
        only_classes=only_classes,
    )
    path = folder / FILE
    write_text(path, printable_lines(html))
    return path


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _columns(report: StudyReport) -> list[_Column]:
    """The columns of the table; optional ones if at least one candidate has a value."""
    measured = [result for result in report.results if result.measurement]
    present = [column for column in _OPTIONAL_COLUMNS if any(map(column.text, measured))]
    return [*_COLUMNS, *present]


def _embedded(draw: Callable[[tuple[float, float]], str]) -> dict[str, str] | None:
    """A plot as base64 text for wide and for narrow pages; None if there is nothing to draw."""
    plots = {"wide": draw(plot.WIDE_IN), "narrow": draw(plot.NARROW_IN)}
    if not plots["wide"]:
        return None
    return {name: base64.b64encode(svg.encode()).decode() for name, svg in plots.items()}


def _sensitivity(found: Sensitivity) -> dict[str, Any]:
    worst = (f"{layer.name} ({layer.sqnr_db:.1f} dB)" for layer in found.layers[:5])
    steps = (f"{step.fp32_layers} layers in fp32 {step.agreement:.3f}" for step in found.steps)
    return {
        "plot": _embedded(lambda size_in: plot.layer_sensitivity(found, size_in)),
        "worst": ", ".join(worst),
        "steps": "; ".join(steps),
    }


def _differences(folder: Path, report: StudyReport) -> dict[str, list[ImageDifference]]:
    """Candidate id -> images, of the chosen or nearest candidate and of the library's default int8."""
    shown = [report.decision.chosen or report.decision.nearest]
    shown += [one.id for one in report.results if one.precision == LIBRARY_DEFAULT and one.measurement]
    files = sorted((folder / EVALUATION).glob("*.png"))
    reference = folder / predictions_file(report.baseline)
    labels = load_bundle(f"{folder / 'source'}/").labels
    found = {}
    for name in dict.fromkeys(filter(None, shown)):
        predictions = folder / predictions_file(name)
        if predictions.is_file() and reference.is_file() and files:
            # The file of a device may hold anything: without this part, the report is whole.
            with suppress(Exception):
                found[name] = image_differences(report.model.task, files, predictions, reference, labels)
    return found


def _facts(report: StudyReport) -> str:
    values = asdict(report)
    shown = ("edge_vision", "device", "settings", "model", "dataset")
    return json.dumps({name: values[name] for name in shown}, indent=1)
