"""report.json, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_vision import __version__
from edge_vision.optimize.errors import DISK_FULL, DiskFull, OptimizeError

FORMAT = 1


def write_report(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Write it and return it. `chosen` is the id of the chosen row, or None. Raises DiskFull."""
    report = {"format": FORMAT, "edge_vision": __version__, "chosen": values["decision"]["chosen"], **values}
    write_text(folder / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    return report


def write_text(path: Path, text: str) -> None:
    """Write a file by way of an unfinished one. Raises DiskFull."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(text, "utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        raise (DiskFull(path.parent) if error.errno in DISK_FULL else error) from None


def wall_before(folder: Path) -> float:
    """Seconds that earlier runs of this study took."""
    try:
        return float(json.loads((folder / "report.json").read_text("utf-8"))["wall_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def read_report(folder: Path) -> dict[str, Any]:
    """report.json of a folder of results. Raises OptimizeError."""
    try:
        report: dict[str, Any] = json.loads((folder / "report.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise OptimizeError(f"{folder}: expected a folder with report.json, got: {error}") from None
    return report
