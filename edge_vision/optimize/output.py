"""The output of a study: the chosen bundle, a ladder of faster variants, and a parameter file."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from edge_vision.bundles.ladder import run_parameters
from edge_vision.bundles.store import load_bundle
from edge_vision.offline.bundle_folder import put, write_folder
from edge_vision.offline.output_folder import remove_path
from edge_vision.optimize.errors import DISK_FULL, DiskFull
from edge_vision.optimize.report.report_file import StudyReport, write_text
from edge_vision.optimize.results import CandidateResult

_NODE = {"detect": "detector", "classify": "cascade"}
_LADDER = """\
# The chosen bundle, then ones with less agreement that are faster by `relative`: the share of the baseline's
# time, measured alternately with it. The milliseconds of different rungs are of different times, in which the
# speed of the machine may differ: they are not comparable.
# The gate's parameter `ladder` takes this file: with a limit of the load, the detector runs the faster ones.
"""


def write_output(folder: Path, report: StudyReport) -> list[Path]:
    """Write bundle/, ladder/, ladder.yaml and params.yaml, nothing if no candidate was chosen.

    Removes the output of an earlier choice. Returns what was written. Raises DiskFull, BundleError.
    """
    try:
        return _write(folder, report)
    except OSError as error:
        raise (DiskFull(folder) if error.errno in DISK_FULL else error) from None


def _write(folder: Path, report: StudyReport) -> list[Path]:
    for name in ("bundle", "ladder", "ladder.yaml", "params.yaml"):
        remove_path(folder / name)
    rungs = [report.result(name) for name in report.decision.ladder]
    if not rungs:
        return []
    (folder / "ladder").mkdir()
    paths = ["bundle", *(f"ladder/{number}_{_slug(rung)}" for number, rung in enumerate(rungs[1:], 1))]
    for path, rung in zip(paths, rungs, strict=True):
        _write_bundle(folder, path, rung, report)
    entries = [{"bundle": path, **_figures(rung)} for path, rung in zip(paths, rungs, strict=True)]
    write_text(folder / "ladder.yaml", _LADDER + yaml.safe_dump(entries, sort_keys=False))
    write_text(folder / "params.yaml", _params(folder, rungs[0], report.model.task))
    return [folder / name for name in (*paths, "ladder.yaml", "params.yaml")]


def _slug(result: CandidateResult) -> str:
    recipe = f"{result.trained}_" if result.trained else ""
    return re.sub(r"[^a-z0-9_]", "_", f"{result.backend}_{recipe}{result.precision}_{result.size}")


def _figures(result: CandidateResult) -> dict[str, Any]:
    """The measurement as it is stored in a manifest and in the ladder."""
    measured = result.measured
    return {
        "id": result.id,
        "precision": result.precision,
        "backend": result.backend,
        "threads": result.threads,
        "p50_ms": measured.timing.p50_ms,
        "p95_ms": measured.timing.p95_ms,
        "p99_ms": measured.timing.p99_ms,
        "relative": result.relative,
        "agreement": round(result.agreement, 4),
        **({"classes": list(result.classes)} if result.classes else {}),
        "rss_mb": measured.rss_mb,
        "cold_start_s": measured.cold_start_s,
    }


def _write_bundle(folder: Path, path: str, result: CandidateResult, report: StudyReport) -> None:
    """Copy the bundle of a variant, with the measurement in its manifest, and verify the copy."""
    variant = load_bundle(f"{folder / result.folder}{os.sep}")
    graph = variant.manifest.graphs[0]
    name = f"{report.model.name[:40]}_{_slug(result)}"[:64]
    lineage = {key: value for key, value in variant.manifest.figures.items() if key == "train"}
    figures: Mapping[str, Any] = {**lineage, "optimize": {**_figures(result), "cpu": report.device.cpu}}
    manifest = replace(variant.manifest, name=name, figures=figures)
    files = {graph.file: variant.verify(graph).read_bytes()}
    for extra in (manifest.labels_file, "LICENSE"):
        if (variant.folder / extra).is_file():
            files[extra] = (variant.folder / extra).read_bytes()
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder) as temporary:
        unfinished = Path(temporary) / "bundle"
        write_folder(unfinished, manifest, files)
        put(unfinished, folder / path, Path(temporary) / "old")
    bundle = load_bundle(f"{folder / path}{os.sep}")
    bundle.verify(bundle.manifest.graphs[0])


def _params(folder: Path, result: CandidateResult, task: str) -> str:
    """A ROS 2 parameter file for the node of the task, in any namespace."""
    model = str((folder / "bundle").absolute())
    values = run_parameters(model, result.backend, result.precision, result.threads)
    comment = (
        f"# Chosen by `optimize`: {result.id}, see report.html. Use it with:\n"
        f"#   ros2 launch edge_vision pipeline.launch.py params_file:={folder.absolute() / 'params.yaml'}\n"
    )
    return comment + yaml.safe_dump({f"/**/{_NODE[task]}": {"ros__parameters": values}}, sort_keys=False)
