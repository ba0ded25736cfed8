"""The command `python -m edge_vision evaluate cascade`."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from edge_vision.core.output_folder import claim_folder
from edge_vision.core.printable import printable
from edge_vision.diagnostics.provenance import write_json
from edge_vision.evaluate import process_pool
from edge_vision.evaluate.chains import cost_plot, report
from edge_vision.evaluate.chains.chain import ECONOMY
from edge_vision.evaluate.chains.chain_run import ChainsRun
from edge_vision.evaluate.chains.stages import cascade_of, hashes
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.gate import plot
from edge_vision.evaluate.metrics.builtin import METRICS
from edge_vision.evaluate.metrics.metric import Metric, load_metrics
from edge_vision.evaluate.process_pool import QUICK_FRAMES
from edge_vision.evaluate.selection import add_selection_arguments, select_conditions
from edge_vision.gate.frame_gate import GateConfig

EXAMPLES = f"""\
examples:
  python -m edge_vision evaluate cascade                                   all conditions, half an hour
  python -m edge_vision evaluate cascade --conditions pan_tilt --quick     {QUICK_FRAMES} frames of one kind
  python -m edge_vision evaluate cascade --split tune --jobs 4             conditions for choosing settings
  python -m edge_vision evaluate cascade --conditions pan_tilt@777         a new sequence of a known kind
  python -m edge_vision evaluate cascade --video mine.mp4 --set tracked_interval_ms=100
  python -m edge_vision evaluate cascade --split tune --cascade my_stage   with a fitted stage
  python -m edge_vision evaluate cascade --resume                          continue after Ctrl-C

Chains: every_frame (the detector alone), fixed_interval_tracker, gate, gate_tracking, gate_cascade, full.
"full" uses the gate's settings of config/economy.yaml; --set changes them one by one. The detections on each
frame are cached; each finished condition is stored in the results folder.
exit codes: 0 done, 1 the detector failed, 2 wrong arguments or no video, 130 stopped by Ctrl-C
"""


def add_parser(commands: Any) -> None:
    """Add the sub-command to those of `evaluate`."""
    parser = commands.add_parser(
        "cascade",
        help="CPU cost, recall, F1 and track ids of whole chains and of baselines",
        description="Compare whole chains with the detector on every frame, and with fixed intervals.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_selection_arguments(parser, "out/cascade")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="changes",
        help="a setting of the gate in the chain 'full'; may be repeated",
    )
    parser.add_argument(
        "--cascade",
        nargs="+",
        default=[],
        metavar="BUNDLE",
        help="the stages of the cascade, by name or folder (default: no cascade)",
    )
    parser.add_argument("--resume", action="store_true", help="reuse conditions that an earlier run finished")
    parser.set_defaults(run=run_cascade)


def gate_settings(changes: list[str]) -> dict[str, float | int | bool]:
    """The gate's settings in "full": the economy settings with NAME=VALUE changes. Raises EvaluateError."""
    defaults = {field.name: getattr(GateConfig(), field.name) for field in fields(GateConfig)}
    settings = dict(ECONOMY)
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or name not in defaults:
            raise EvaluateError(
                f"expected NAME=VALUE with a name out of {', '.join(defaults)}, got '{change}'"
            )
        settings[name] = _parsed(name, text, type(defaults[name]))
    return settings


def _parsed(name: str, text: str, kind: type) -> float | int | bool:
    if kind is bool:
        if text not in ("true", "false"):
            raise EvaluateError(f"{name}: expected true or false, got '{text}'")
        return text == "true"
    try:
        return int(text) if kind is int else float(text)
    except ValueError:
        raise EvaluateError(f"{name}: expected a number, got '{text}'") from None


def run_cascade(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit status. Raises EvaluateError."""
    settings = tuple(sorted(gate_settings(options.changes).items()))
    run = ChainsRun(options.quick, settings, tuple(options.cascade), tuple(options.metric))
    metrics = load_metrics(METRICS, options.metric)
    cascade_of(run.cascade)  # Report an unusable stage before any work.
    selected = select_conditions(options.conditions, options.split, options.video)
    videos = [video for _, video in selected if video]
    outputs = ("report.json", "table.md", "cascade.png", "conditions")
    claim_folder(options.out, "evaluate-cascade", outputs, videos)
    cache = _ResultCache(options.out / "conditions", run)
    started = time.monotonic()
    print(report.heading(metrics), flush=True)
    results: dict[str, Any] = {}

    def on_done(name: str, result: dict[str, Any]) -> None:
        results[name] = result
        print(printable(report.line(name, result, metrics)), flush=True)
        for note in result["notes"]:
            print(f"    {note}", flush=True)

    def on_evaluated(name: str, result: dict[str, Any]) -> None:
        cache.write(name, result)
        on_done(name, result)

    work = []
    for condition, video in selected:
        cached = cache.read(condition.name) if options.resume else None
        if cached is not None:
            on_done(condition.name, cached)
        else:
            work.append((condition, process_pool.Task(condition.name, video, run)))
    complete = not work or process_pool.evaluate_all(work, min(options.jobs, len(work)), on_evaluated)
    names = [one.condition.name for one in selected]
    ordered = {name: results[name] for name in names if name in results}
    if not ordered:
        print("evaluate: stopped before a condition was done; detections stay cached", file=sys.stderr)
        return 130
    used = {"quick": run.quick, "full_settings": dict(run.settings), "cascade": hashes(run.cascade)}
    _write(options.out, report.report(ordered, used, complete, time.monotonic() - started), metrics)
    return 0 if complete else 130


class _ResultCache:
    """Finished conditions on disk, keyed by the settings, the bundles and the code."""

    def __init__(self, folder: Path, run: ChainsRun) -> None:
        self._folder = folder
        digest = hashlib.sha256(repr((run, hashes(run.cascade))).encode())
        package = Path(__file__).parents[2]
        for room in ("core", "tracking", "detect", "gate", "cascade", "evaluate"):
            for path in sorted((package / room).rglob("*.py")):
                digest.update(path.read_bytes())
        self._key = digest.hexdigest()

    def read(self, name: str) -> dict[str, Any] | None:
        """The cached result of a condition, None if there is none with this key."""
        try:
            cached = json.loads((self._folder / f"{name}.json").read_text())
            return cached["result"] if cached["key"] == self._key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, name: str, result: dict[str, Any]) -> None:
        write_json(self._folder / f"{name}.json", {"key": self._key, "result": result})


def _write(out: Path, content: dict[str, Any], metrics: Sequence[Metric]) -> None:
    """Write report.json, table.md and the plot, and print the headline."""
    files = [out / "report.json", out / "table.md"]
    write_json(files[0], content)
    files[1].write_text(report.markdown(content["conditions"], metrics))
    print("\n" + content["headline"])
    if missing := plot.missing_package("make evaluate-cascade"):
        print(missing, file=sys.stderr)
    else:
        files.append(out / "cascade.png")
        cost_plot.draw(content["conditions"], files[-1])
    stopped = "" if content["complete"] else "; stopped: not all conditions"
    print(f"{', '.join(map(str, files))}; {content['seconds']:.0f} s{stopped}")
