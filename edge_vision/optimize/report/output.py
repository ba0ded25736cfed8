"""What a study leaves to be used: the chosen bundle, its ladder of faster variants, a parameter file."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from edge_vision.bundles.atomic_write import put, write_folder
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.core.output_folder import remove_path
from edge_vision.optimize.errors import DISK_FULL, DiskFull
from edge_vision.optimize.report.report_file import write_text

_NODE = {"detect": "detector", "classify": "cascade"}
_TOLD = (
    "backend",
    "threads",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "relative",
    "agreement",
    "rss_mb",
    "cold_start_s",
)


def write_output(folder: Path, report: Mapping[str, Any]) -> list[Path]:
    """bundle/, ladder/, ladder.yaml and params.yaml. Nothing where nothing was chosen, and what an earlier
    choice left is taken away. Returns what was written. Raises DiskFull, BundleError."""
    try:
        return _write(folder, report)
    except OSError as error:
        raise (DiskFull(folder) if error.errno in DISK_FULL else error) from None


def _write(folder: Path, report: Mapping[str, Any]) -> list[Path]:
    for name in ("bundle", "ladder", "ladder.yaml", "params.yaml"):
        remove_path(folder / name)
    rows = {row["id"]: row for row in report["rows"]}
    rungs = [rows[name] for name in report["decision"]["ladder"]]
    if not rungs:
        return []
    (folder / "ladder").mkdir()
    places = ["bundle", *(f"ladder/{number}_{_word(row)}" for number, row in enumerate(rungs[1:], 1))]
    for place, row in zip(places, rungs, strict=True):
        _variant(folder, place, row, report)
    told = [{"bundle": place, **_setting(row)} for place, row in zip(places, rungs, strict=True)]
    write_text(folder / "ladder.yaml", _LADDER + yaml.safe_dump(told, sort_keys=False))
    write_text(folder / "params.yaml", _params(folder, rungs[0], report["model"]["task"]))
    return [folder / name for name in (*places, "ladder.yaml", "params.yaml")]


_LADDER = """\
# From the chosen bundle down: each next one is faster and agrees less. relative: of the baseline's time.
"""


def _word(row: Mapping[str, Any]) -> str:
    return re.sub(r"[^a-z0-9_]", "_", f"{row['backend']}_{row['precision']}_{row['size']}")


def _setting(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "precision": row["precision"], **{name: row[name] for name in _TOLD}}


def _variant(folder: Path, place: str, row: Mapping[str, Any], report: Mapping[str, Any]) -> Bundle:
    """A copy of a graph's bundle, with what was measured in its manifest."""
    made = load_bundle(f"{folder / row['graph']}{os.sep}")
    graph = made.manifest.graphs[0]
    model = report["model"]["name"]
    name = f"{model[:40]}_{_word(row)}"[:64]
    figures = {"optimize": {"id": row["id"], **_setting(row), "cpu": report["device"]["cpu"]}}
    manifest = replace(made.manifest, name=name, figures=figures)
    files = {graph.file: made.verify(graph).read_bytes()}
    for extra in (manifest.labels_file, "LICENSE"):
        if (made.folder / extra).is_file():
            files[extra] = (made.folder / extra).read_bytes()
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder) as temporary:
        unfinished = Path(temporary) / "bundle"
        write_folder(unfinished, manifest, files)
        put(unfinished, folder / place, Path(temporary) / "old")
    bundle = load_bundle(f"{folder / place}{os.sep}")
    bundle.verify(bundle.manifest.graphs[0])
    return bundle


def _params(folder: Path, row: Mapping[str, Any], task: str) -> str:
    """ROS 2's parameter file, for the node of the task in any namespace."""
    values = {
        "model": str((folder / "bundle").absolute()),
        "backend": row["backend"],
        # The bundle holds one graph; only bfloat16 is for the runtime to be told.
        "precision": "bf16" if row["precision"] == "bf16" else "auto",
        "threads": row["threads"],
    }
    comment = f"# Chosen by `optimize`: {row['id']}, see report.html. Use it as it is:\n"
    comment += (
        f"#   ros2 launch edge_vision pipeline.launch.py params_file:={folder.absolute() / 'params.yaml'}\n"
    )
    return comment + yaml.safe_dump({f"/**/{_NODE[task]}": {"ros__parameters": values}}, sort_keys=False)
