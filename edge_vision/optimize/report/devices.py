"""The results of several devices in one table, with a recommendation for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_vision.core.printable import printable
from edge_vision.optimize.device_studies import DeviceStudy
from edge_vision.optimize.report import terminal
from edge_vision.optimize.report.report_file import write_text
from edge_vision.optimize.results import CandidateResult

FILE = "devices.json"
FORMAT = 1
_WIDTH = 26


def table(studies: Sequence[DeviceStudy]) -> str:
    """A row for each candidate, a column for each device: p50 in ms, agreement, and whether it was chosen.
    Below it the recommendation for each device."""
    rows = _rows(studies)
    lines = [f"{'candidate':38}" + "".join(f"{_cut(one.name):>{_WIDTH}}" for one in studies)]
    for candidate, results in rows.items():
        cells = (_cell(results.get(one.address)) for one in studies)
        lines.append(f"{candidate:38}" + "".join(f"{cell:>{_WIDTH}}" for cell in cells))
    lines += [f"{one.name}: {_recommendation(one)}" for one in studies]
    return "\n".join(printable(line) for line in lines)


def write(folder: Path, studies: Sequence[DeviceStudy]) -> Path:
    """Write devices.json: `devices`, each with its recommendation, and `rows`, each with its measurement on
    each device. Raises DiskFull."""
    values = {
        "format": FORMAT,
        "devices": [_device(folder, one) for one in studies],
        "rows": [
            {"id": candidate, "devices": {address: _values(one) for address, one in results.items()}}
            for candidate, results in _rows(studies).items()
        ],
    }
    write_text(folder / FILE, json.dumps(values, indent=1, allow_nan=False) + "\n")
    return folder / FILE


def _rows(studies: Sequence[DeviceStudy]) -> dict[str, dict[str, CandidateResult]]:
    """Candidate -> device -> result."""
    rows: dict[str, dict[str, CandidateResult]] = {}
    for study in studies:
        for result in study.report.results if study.report else ():
            rows.setdefault(result.id, {})[study.address] = result
    return rows


def _cut(name: str) -> str:
    return name if len(name) < _WIDTH else f"{name[: _WIDTH // 2]}...{name[4 - _WIDTH // 2 :]}"


def _cell(result: CandidateResult | None) -> str:
    if result is None:
        return "-"
    if result.measurement is None:
        return result.status
    chosen = "chosen " if result.status == "chosen" else ""
    return f"{chosen}{result.measurement.timing.p50_ms:.2f} ms {result.agreement:.3f}"


def _recommendation(study: DeviceStudy) -> str:
    return study.error or (terminal.verdict(study.report) if study.report else "")


def _device(folder: Path, study: DeviceStudy) -> dict[str, Any]:
    values: dict[str, Any] = {
        "device": study.address,
        "name": study.name,
        "folder": study.folder.relative_to(folder).as_posix(),
        "error": study.error,
    }
    if study.report:
        device, decision = study.report.device, study.report.decision
        values |= {
            "cpu": device.cpu,
            "cores": device.cores,
            "flags": device.flags,
            "versions": dict(device.versions),
            "complete": study.report.complete,
            "chosen": decision.chosen,
            "nearest": decision.nearest,
            "misses": decision.misses,
        }
    return values


def _values(result: CandidateResult) -> dict[str, Any]:
    values: dict[str, Any] = {"status": result.status, "reason": result.reason, "relative": result.relative}
    if result.measurement:
        measured, timing = result.measurement, result.measurement.timing
        values |= {
            "machine": measured.machine,
            "p50_ms": timing.p50_ms,
            "p95_ms": timing.p95_ms,
            "agreement": result.agreement,
            "rss_mb": measured.rss_mb,
            "cold_start_s": measured.cold_start_s,
        }
    return values
