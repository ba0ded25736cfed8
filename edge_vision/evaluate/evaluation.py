"""Runs one of the evaluations: selects conditions, evaluates them in parallel, stores results, reports."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_vision.core.printable import printable, printable_lines
from edge_vision.evaluate.chains.stages import hashes
from edge_vision.evaluate.condition_jobs import Task, evaluate_all
from edge_vision.evaluate.condition_run import ConditionRun
from edge_vision.evaluate.reference.detector import BUNDLE
from edge_vision.evaluate.results import provenance, results_sha256
from edge_vision.evaluate.selection import Selected, executor_of
from edge_vision.offline.output_folder import claim_folder
from edge_vision.offline.provenance import write_json

Results = dict[str, dict[str, Any]]
"""Condition -> its part of report.json."""
_ROOMS = ("core", "tracking", "detect", "gate", "cascade", "evaluate")
_STORED = "conditions"
REPORT = "report.json"


class Evaluation(ABC):
    """One sub-command. command: its name. outputs: what `write` writes. run: evaluates one condition.

    bundles: names of those that a condition needs beside the reference's.
    """

    command: str
    outputs: tuple[str, ...]
    run: ConditionRun
    bundles: tuple[str, ...] = ()

    @abstractmethod
    def heading(self) -> str:
        """The heading of the lines on the screen."""

    @abstractmethod
    def lines(self, name: str, result: Mapping[str, Any]) -> list[str]:
        """The lines on the screen of a finished condition."""

    def finish(self, results: Results) -> None:
        """Extend the results after all conditions; may raise KeyboardInterrupt."""

    @abstractmethod
    def report(self, results: Results) -> dict[str, Any]:
        """The content of report.json, without provenance. "headline": the last lines on the screen."""

    @abstractmethod
    def write(self, out: Path, content: Mapping[str, Any]) -> list[Path]:
        """Write tables and plots of a report to a folder."""


def evaluate(evaluation: Evaluation, selected: Sequence[Selected], options: argparse.Namespace) -> int:
    """Run an evaluation. options: as of `add_run_arguments`. Returns the exit status. Raises
    EdgeVisionError."""
    videos = [one.video for one in selected if one.video]
    bundles = hashes((BUNDLE, *evaluation.bundles))
    store = _ResultStore(options.out / _STORED, repr((evaluation.run, bundles)))
    started = time.monotonic()
    results: Results = {}

    def on_done(name: str, result: dict[str, Any]) -> None:
        results[name] = result
        for line in [*evaluation.lines(name, result), *(f"    {note}" for note in result["notes"])]:
            print(printable(line), flush=True)

    def on_evaluated(name: str, result: dict[str, Any]) -> None:
        store.write(name, result)
        on_done(name, result)

    stored: Results = {}
    work = []
    for condition, video in selected:
        result = store.read(condition.name) if options.resume else None
        if result is not None:
            stored[condition.name] = result
        else:
            work.append((condition, Task(condition.name, video, evaluation.run, bundles)))
    executor = executor_of(options) if work else None  # Before the folder is made: it may be impossible.
    claim_folder(
        options.out, f"evaluate-{evaluation.command}", (REPORT, _STORED, *evaluation.outputs), videos
    )
    print(evaluation.heading(), flush=True)
    for name, result in stored.items():
        on_done(name, result)
    complete = executor is None or evaluate_all(work, executor, on_evaluated)
    names = [one.condition.name for one in selected]
    ordered = {name: results[name] for name in names if name in results}
    if not ordered:
        print("evaluate: stopped before a condition was done; detections stay cached", file=sys.stderr)
        return 130
    digest = results_sha256(ordered)
    complete = complete and _finished(evaluation, ordered)
    content = evaluation.report(ordered) | {"complete": complete, "quick": options.quick, **provenance()}
    content |= {"results_sha256": digest}
    _write(evaluation, options.out, content | {"seconds": round(time.monotonic() - started, 1)})
    return 0 if complete else 130


def _finished(evaluation: Evaluation, results: Results) -> bool:
    try:
        evaluation.finish(results)
        return True
    except KeyboardInterrupt:
        return False


def _write(evaluation: Evaluation, out: Path, content: dict[str, Any]) -> None:
    write_json(out / REPORT, content)
    files = [out / REPORT, *evaluation.write(out, content)]
    print("\n" + printable_lines(content["headline"]))
    stopped = "" if content["complete"] else "; stopped: not all conditions"
    print(f"{', '.join(map(str, files))}; {content['seconds']:.0f} s{stopped}")


class _ResultStore:
    """Finished conditions on disk, for --resume, keyed by the settings and the code."""

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        digest = hashlib.sha256(key.encode())
        package = Path(__file__).parents[1]
        for room in _ROOMS:
            for path in sorted((package / room).rglob("*.py")):
                digest.update(path.read_bytes())
        self._key = digest.hexdigest()

    def read(self, name: str) -> dict[str, Any] | None:
        """The stored result of a condition, None if there is none with this key."""
        try:
            stored = json.loads((self._folder / f"{name}.json").read_text())
            return stored["result"] if stored["key"] == self._key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, name: str, result: dict[str, Any]) -> None:
        write_json(self._folder / f"{name}.json", {"key": self._key, "result": result})
