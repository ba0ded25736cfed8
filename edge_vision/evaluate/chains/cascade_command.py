"""The command: `python -m edge_vision evaluate cascade`."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

from edge_vision.core.output_folder import claim_folder
from edge_vision.core.printable import printable
from edge_vision.diagnostics.provenance import write_json
from edge_vision.evaluate import process_pool
from edge_vision.evaluate.chains import cost_plot, report
from edge_vision.evaluate.chains.chain import ECONOMY
from edge_vision.evaluate.chains.scene_run import ChainsRun
from edge_vision.evaluate.chains.stages import cascade_of, hashes
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.gate import plot
from edge_vision.evaluate.selection import add_what, picked
from edge_vision.gate.frame_gate import GateConfig

EXAMPLES = f"""\
examples:
  python -m edge_vision evaluate cascade                               everything, half an hour and more
  python -m edge_vision evaluate cascade --scenes pan_tilt --quick     {process_pool.QUICK_FRAMES} frames of 2
  python -m edge_vision evaluate cascade --split tune --jobs 4         what settings may be chosen on
  python -m edge_vision evaluate cascade --scenes pan_tilt@777         a sequence that nobody has looked at
  python -m edge_vision evaluate cascade --video mine.mp4 --set tracked_interval_ms=100
  python -m edge_vision evaluate cascade --split tune --cascade my_stage   with a fitted stage
  python -m edge_vision evaluate cascade --resume                      go on where Ctrl-C ended it

Chains: every_frame (the detector alone), fixed_interval_tracker, gate, gate_tracking, gate_cascade, full.
"full" has the gate's settings of config/economy.yaml; --set changes them one by one. What the detector finds
on each frame is kept in the cache, and each finished scene in the folder of the results.
exit codes: 0 done, 1 the detector failed, 2 wrong arguments or no video, 130 stopped by Ctrl-C
"""


def add_to(commands: Any) -> None:
    """Add the command to those of `python -m edge_vision evaluate`."""
    parser = commands.add_parser(
        "cascade",
        help="cost, recall, F1 and ids of gate, cascade, detector and tracker together, and of rivals",
        description="Compare whole chains with the detector on every frame, and with fixed intervals.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_what(parser, "--scenes", "out/cascade")
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
    parser.add_argument("--resume", action="store_true", help="use the scenes that an earlier run finished")
    parser.set_defaults(run=run)


def settings(changes: list[str]) -> dict[str, float | int | bool]:
    """The gate's settings in "full": the economy settings, changed so. Raises EvaluateError."""
    known = {field.name: getattr(GateConfig(), field.name) for field in fields(GateConfig)}
    made = dict(ECONOMY)
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or name not in known:
            raise EvaluateError(f"expected NAME=VALUE with a name out of {', '.join(known)}, got '{change}'")
        made[name] = _value(name, text, type(known[name]))
    return made


def _value(name: str, text: str, kind: type) -> float | int | bool:
    if kind is bool:
        if text not in ("true", "false"):
            raise EvaluateError(f"{name}: expected true or false, got '{text}'")
        return text == "true"
    try:
        return int(text) if kind is int else float(text)
    except ValueError:
        raise EvaluateError(f"{name}: expected a number, got '{text}'") from None


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit status. Raises EvaluateError."""
    job = ChainsRun(options.quick, tuple(sorted(settings(options.changes).items())), tuple(options.cascade))
    cascade_of(job.cascade)  # What is wrong with a stage is said at once.
    asked = picked(options.scenes, options.split, options.video)
    videos = [video for _, video in asked if video]
    claim_folder(
        options.out, "evaluate-cascade", ("report.json", "table.md", "cascade.png", "scenes"), videos
    )
    shelf = _Shelf(options.out / "scenes", job)
    started = time.monotonic()
    print(report.COLUMNS, flush=True)
    results: dict[str, Any] = {}

    def on_done(name: str, scene: dict[str, Any]) -> None:
        results[name] = scene
        print(printable(report.screen_line(name, scene)), flush=True)
        for note in scene["notes"]:
            print(f"    {note}", flush=True)

    todo = []
    for condition, video in asked:
        kept = shelf.read(condition.name) if options.resume else None
        if kept is not None:
            on_done(condition.name, kept)
        else:
            todo.append((condition, process_pool.Task(condition.name, video, job)))

    def on_new(name: str, scene: dict[str, Any]) -> None:
        shelf.write(name, scene)
        on_done(name, scene)

    complete = not todo or process_pool.run(todo, min(options.jobs, len(todo)), on_new)
    ordered = {condition.name: results[condition.name] for condition, _ in asked if condition.name in results}
    return _leave(options.out, job, ordered, complete, time.monotonic() - started)


class _Shelf:
    """Finished scenes on disk, each with a mark of all that its figures hang on but the machine."""

    def __init__(self, folder: Path, job: ChainsRun) -> None:
        self._folder = folder
        digest = hashlib.sha256(repr((job, hashes(job.cascade))).encode())
        package = Path(__file__).parents[2]
        for room in ("core", "tracking", "detect", "gate", "cascade", "evaluate"):
            for path in sorted((package / room).rglob("*.py")):
                digest.update(path.read_bytes())
        self._mark = digest.hexdigest()

    def read(self, name: str) -> dict[str, Any] | None:
        """A scene of this job and this code, None where there is none."""
        try:
            kept = json.loads((self._folder / f"{name}.json").read_text())
            return kept["scene"] if kept["mark"] == self._mark else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, name: str, scene: dict[str, Any]) -> None:
        write_json(self._folder / f"{name}.json", {"mark": self._mark, "scene": scene})


def _leave(out: Path, job: ChainsRun, scenes: dict[str, Any], complete: bool, seconds: float) -> int:
    """Write what there is."""
    if not scenes:
        print("evaluate: stopped before a scene was done; what the detector found is kept", file=sys.stderr)
        return 130
    told = {"quick": job.quick, "full_settings": dict(job.settings), "cascade": hashes(job.cascade)}
    whole = report.report(scenes, told, complete, seconds)
    write_json(out / "report.json", whole)
    files = [out / "report.json", out / "table.md"]
    files[1].write_text(report.markdown(scenes))
    print("\n" + whole["headline"])
    missing = plot.missing_package("make evaluate-cascade")
    if missing:
        print(missing, file=sys.stderr)
    else:
        files.append(out / "cascade.png")
        cost_plot.draw(scenes, files[-1])
    print(f"{', '.join(map(str, files))}; {seconds:.0f} s{'' if complete else '; stopped: not all scenes'}")
    return 0 if complete else 130
