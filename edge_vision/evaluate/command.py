"""The commands: `python -m edge_vision evaluate`; that of the chains is in `cascade_app.py`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_vision.core.output_folder import claim_folder
from edge_vision.core.printable import printable, printable_error, printable_output
from edge_vision.errors import EdgeVisionError, OutputError
from edge_vision.evaluate import process_pool
from edge_vision.evaluate.chains import cascade_command
from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.fit import command
from edge_vision.evaluate.gate import plot, report
from edge_vision.evaluate.gate.condition_run import GateRun, gate_names
from edge_vision.evaluate.gate.gate_runner import OURS, check_gate
from edge_vision.evaluate.gate.markdown import markdown
from edge_vision.evaluate.process_pool import QUICK_FRAMES
from edge_vision.evaluate.selection import add_what, picked, video_argument

_EXAMPLES = f"""\
examples:
  python -m edge_vision evaluate gate                                   our gate on everything, half an hour
  python -m edge_vision evaluate gate --conditions pan_tilt --quick     {QUICK_FRAMES} frames of one condition
  python -m edge_vision evaluate gate --split tune --jobs 4             what a gate may be tuned on
  python -m edge_vision evaluate gate --video mine.mp4 --gate my_pkg.my_gate:MyGate
  python -m edge_vision evaluate fit-cascade --video mine.mp4           a stage for your own scene; has --help

What the detector finds on each frame is kept in the cache: a second run needs no detector. A gate is any
class with decide(frame, mono_ns) that returns a bool or an object with `passed`; where it has
inferred(stamp_ns, detections), it is told what was found.
exit codes: 0 done, 1 the detector failed, 2 wrong arguments, no video or no gate, 130 stopped by Ctrl-C
"""


@printable_output()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        return int(options.run(options))
    except (EvaluateError, OutputError) as error:
        print(f"evaluate: {printable_error(error)}", file=sys.stderr)
        return 2
    except EdgeVisionError as error:
        print(f"evaluate: {printable_error(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nevaluate: stopped before anything was done", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m edge_vision evaluate",
        description="Judge a gate, or a whole chain, against an every-frame detector; fit a cascade's stage.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="{gate,cascade,events,fit-cascade}")
    gate = commands.add_parser("gate", help="delay, recall, F1 and calls of a gate and of its rivals")
    gate.add_argument(
        "--gate", action="append", metavar="MODULE:CLASS", help=f"a gate beside {OURS}; may be repeated"
    )
    add_what(gate, "--conditions", "out/gate")
    gate.set_defaults(run=_gate)
    cascade_command.add_to(commands)
    events = commands.add_parser("events", help="pictures of a clip's events, to remove false ones by eye")
    events.add_argument("--video", type=video_argument, required=True, metavar="V")
    events.add_argument("--out", type=Path, default=Path("out/events"), help="default: %(default)s")
    events.set_defaults(run=_events)
    command.add_parser(commands)
    return parser


def chosen(options: argparse.Namespace) -> list[tuple[Condition, str | None]]:
    """The conditions that are asked for, each with its video file. Raises EvaluateError."""
    return picked(options.conditions, options.split, options.video)


def _gate(options: argparse.Namespace) -> int:
    places = tuple(options.gate or ())
    for place in places:
        check_gate(place)
    asked = chosen(options)
    videos = [video for _, video in asked if video]
    claim_folder(options.out, "evaluate-gate", ("report.json", "table.md", "gate.png"), videos)
    started = time.monotonic()
    results: dict[str, dict[str, Any]] = {}
    gates = list(gate_names(places))
    print(report.COLUMNS, flush=True)

    def on_done(name: str, result: dict[str, Any]) -> None:
        results[name] = result
        for gate in gates:
            print(printable(report.table_line(name, result, gate)), flush=True)
        for note in result["notes"]:
            print(f"    {note}", flush=True)

    job = GateRun(places, options.quick)
    work = [(c, process_pool.Task(c.name, video, job)) for c, video in asked]
    complete = process_pool.run(work, min(options.jobs, len(work)), on_done)
    ordered = {condition.name: results[condition.name] for condition, _ in asked if condition.name in results}
    return _leave(options, ordered, complete, time.monotonic() - started)


def _leave(options: argparse.Namespace, results: dict[str, Any], complete: bool, seconds: float) -> int:
    """Write what there is."""
    if not results:
        print(
            "evaluate: stopped before a condition was done; what the detector found is kept", file=sys.stderr
        )
        return 130
    whole = report.report(results, options.quick, complete, seconds)
    path = options.out / "report.json"
    path.write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n")
    print("\n" + whole["headline"])
    files = [path, options.out / "table.md"]
    files[1].write_text(markdown(results))
    missing = plot.missing_package()
    if missing:
        print(missing, file=sys.stderr)
    else:
        plot.draw(results, options.out / "gate.png")
        files.append(options.out / "gate.png")
    print(
        f"{', '.join(map(str, files))}; {seconds:.0f} s"
        + ("" if complete else "; stopped: not all conditions")
    )
    return 0 if complete else 130


def _events(options: argparse.Namespace) -> int:
    from edge_vision.evaluate.reference.contact_sheets import write_sheets

    claim_folder(options.out, "evaluate-events", ("entries.json", "sheet_*.png"), [options.video])
    for line in write_sheets(options.video, options.out):
        print(line)
    return 0
