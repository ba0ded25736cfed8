"""report.json: the report of a study as a typed record, written atomically."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_vision import __version__
from edge_vision.bundles.schema import nearest
from edge_vision.optimize.candidates.pareto import Decision
from edge_vision.optimize.data.dataset import Dataset
from edge_vision.optimize.device import OptimizedDevice
from edge_vision.optimize.errors import DISK_FULL, DiskFull, OptimizeError
from edge_vision.optimize.quantization.sensitivity import Sensitivity
from edge_vision.optimize.records import decoded
from edge_vision.optimize.results import CandidateResult
from edge_vision.optimize.settings import Settings

FILE = "report.json"
FORMAT = 2


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """given: as on the command line. sha256: of the fp32 graph."""

    name: str
    task: str
    given: str
    sha256: str


@dataclass(frozen=True, slots=True)
class StudyReport:
    """complete: False while the study runs, or if it was stopped. baseline: id of a candidate. wall_s: of
    all runs of the study."""

    complete: bool
    model: ModelInfo
    device: OptimizedDevice
    settings: Settings
    dataset: Dataset
    baseline: str
    results: tuple[CandidateResult, ...]
    decision: Decision
    sensitivity: Sensitivity | None = None
    notes: tuple[str, ...] = ()
    wall_s: float = 0.0
    edge_vision: str = __version__
    format: int = FORMAT

    def result(self, name: str) -> CandidateResult:
        """The result of a candidate. Raises OptimizeError for an unknown id."""
        for one in self.results:
            if one.id == name:
                return one
        ids = [one.id for one in self.results]
        raise OptimizeError(f"expected one of {', '.join(ids)}, got {name!r}{nearest(name, ids)}")


def write_report(folder: Path, report: StudyReport) -> None:
    """Write report.json. Raises DiskFull."""
    write_text(folder / FILE, json.dumps(asdict(report), indent=1, allow_nan=False) + "\n")


def read_report(folder: Path) -> StudyReport:
    """The report in a folder of results. Raises OptimizeError."""
    try:
        values = json.loads((folder / FILE).read_text("utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}")
        report: StudyReport = decoded(StudyReport, values)
    except FileNotFoundError:
        raise OptimizeError(
            f"{folder}: expected a folder with a {FILE}, got none: nothing was measured there"
        ) from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise OptimizeError(
            f"{folder}: expected a folder with a {FILE} of format {FORMAT}, got: {error}"
        ) from None
    return report


def earlier_wall_s(folder: Path) -> float:
    """Time that earlier runs of the study took; 0 without one."""
    try:
        return read_report(folder).wall_s
    except OptimizeError:
        return 0.0


def write_text(path: Path, text: str) -> None:
    """Write a file atomically. Raises DiskFull."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(text, "utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        raise (DiskFull(path.parent) if error.errno in DISK_FULL else error) from None
