"""The folder of a training: what belongs to a run in it, and what of an earlier run is continued.

What took long is deleted with --restart only: without it, a folder whose state is damaged is refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_vision.backends.runtimes.engine_cache import write_file
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.errors import BundleError, EdgeVisionError
from edge_vision.offline.output_folder import check_subfolders, remove_path
from edge_vision.optimize.errors import DiskFull, OptimizeError
from edge_vision.optimize.records import decoded
from edge_vision.optimize.source import TFLITE, source_bundle
from edge_vision.train.data.input_digests import CLIPS, MODEL, input_digests
from edge_vision.train.data.labels import digests_of
from edge_vision.train.recipes.training_report import TrainingReport
from edge_vision.train.recipes.training_request import TrainingRequest
from edge_vision.train.same_options import as_stored, check_same, read_stored, stored_options

REQUEST, REPORT, BUNDLE, INT8, TEACHER_INT8 = (
    "request.json",
    "report.json",
    "bundle",
    "int8",
    "teacher_int8.onnx",
)
SOURCE, CUT, SEARCH, RANGES, CHECKPOINT = "source", "cut", "search", "ranges", "checkpoint.pt"
SAMPLES, CPU_TIME = "samples", "cpu_time.json"
BUNDLES = "bundles"
"""Figure of a report: folders of the bundles, where these are not bundle/ and int8/."""
_UNFINISHED = tuple(f"{name}.unfinished" for name in ("checkpoint", "cpu_time", BUNDLE, INT8))
_OWN = (
    *(REQUEST, SOURCE, TFLITE, CUT, SEARCH, SAMPLES, RANGES, CHECKPOINT, CPU_TIME, *_UNFINISHED),
    *(BUNDLE, INT8, REPORT, TEACHER_INT8),
)
_FINISHED = (CHECKPOINT, REPORT, BUNDLE, INT8, f"{SEARCH}/records.jsonl")
"""What takes long: it is kept from other options."""
_BUDGET = re.compile(r"budget_[0-9.e+-]+")


def prepared_source(folder: Path, request: TrainingRequest, log: Callable[[str], None]) -> Bundle:
    """The source bundle in the folder of a run. Keeps the caches of an earlier run of the same request.

    Raises OptimizeError if results would be lost, OutputError for a file in place of a folder, BundleError.
    """
    file = folder / REQUEST
    clips = (*request.videos, *request.judge)
    given = as_stored(replace(request, anyway=False)) | digests_of(clips)
    given |= input_digests(request.model, (*clips, *request.other))
    stored = _stored(folder, log)
    for name in {MODEL, CLIPS} & (stored.keys() ^ given.keys()) if stored else ():
        # Not stored by an earlier version, or the model is no longer there.
        one, other = (given, stored) if name in stored else (stored, given)
        one[name] = other[name]
    if stored and has_results(folder):
        check_same(folder, stored, given)
    if stored != given:
        remove_results(folder)
    check_subfolders(folder, (SEARCH, SAMPLES, RANGES))
    source = _intact(folder / SOURCE)
    if source is None:
        if stored == given:
            log(f"{folder / SOURCE}: incomplete or damaged; it is written again")
        remove_path(folder / SOURCE)
        source_bundle(request.model, folder / SOURCE)
        source = load_bundle(f"{folder / SOURCE}{os.sep}")
    if stored != given:
        write_file(file, json.dumps(given, indent=1).encode())
    return source


def finished_report(
    folder: Path, request: TrainingRequest, log: Callable[[str], None]
) -> TrainingReport | None:
    """The report of a finished run of the same request, if its bundles are there; None = run it.

    Raises OptimizeError if results would be lost, BundleError."""
    try:
        report: TrainingReport = decoded(TrainingReport, read_stored(folder / REPORT), strict=True)
    except (AttributeError, KeyError, TypeError, ValueError, OptimizeError):
        return None
    source = prepared_source(folder, request, log)
    names = report.figures.get(BUNDLES) or ((BUNDLE,) if request.recipe == "qat" else (BUNDLE, INT8))
    if report.refused and not request.anyway:
        names = ()
    if report.parent_sha256 != source.manifest.graphs[0].sha256 or not all(
        _intact(folder / name) for name in names
    ):
        return None
    log("finished before with these options; --restart trains again")
    return report


def _stored(folder: Path, log: Callable[[str], None]) -> dict[str, Any]:
    """The stored request; empty without one. Raises OptimizeError if there are results without one."""
    file = folder / REQUEST
    try:
        stored = stored_options(file)
    except OptimizeError:
        if has_results(folder):
            raise
        log(f"{file}: damaged; the run starts from the beginning, as there are no results")
        return {}
    if not stored and has_results(folder):
        raise OptimizeError(
            f"{folder}: expected {REQUEST}, the options of the results in it, got none: restore it, pass "
            f"another --out, or --restart to delete these results"
        )
    return stored


def has_results(folder: Path) -> bool:
    """Whether a run left there what took long."""
    return any((folder / name).exists() for name in _FINISHED)


def _intact(folder: Path) -> Bundle | None:
    with contextlib.suppress(BundleError):
        bundle = load_bundle(f"{folder}{os.sep}")
        bundle.verify(bundle.manifest.graphs[0])
        return bundle
    return None


def stored_choice(folder: Path, name: str, kind: Any, make: Callable[[], Any]) -> Any:
    """What was measured once, and decides which graph is trained. folder: of the run. kind: see `decoded`.

    Raises OptimizeError if it is damaged or missing and a checkpoint depends on it."""
    file = folder / RANGES / name
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
        return decoded(kind, json.loads(file.read_text("utf-8")), strict=True)
    if (folder / CHECKPOINT).exists():
        raise OptimizeError(
            f"{file}: expected what {CHECKPOINT} was trained with, got a missing or damaged file: "
            f"restore it, or pass --restart"
        )
    found = make()
    file.parent.mkdir(exist_ok=True)
    write_file(file, json.dumps(found).encode())
    return found


def remove_failed(folder: Path, error: EdgeVisionError) -> None:
    """Remove what a new run wrote that failed before it trained, except for a full disk."""
    if not isinstance(error, DiskFull) and not has_results(folder):
        remove_results(folder)


def remove_results(folder: Path) -> None:
    """Remove all that a run wrote to its folder."""
    for entry in _OWN:
        remove_path(folder / entry)
    for path in folder.glob("budget_*"):
        if not _BUDGET.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
            continue
        for name in (BUNDLE, INT8):
            remove_path(path / name)
        with contextlib.suppress(OSError):  # The user's files are in it.
            path.rmdir()
