"""The command: `python -m edge_vision.evaluate gate`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_vision.errors import EdgeVisionError
from edge_vision.evaluate import plot, pool, report
from edge_vision.evaluate.condition import QUICK_FRAMES, gate_names
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.fit import command
from edge_vision.evaluate.judged import OURS, check_gate
from edge_vision.evaluate.markdown import markdown
from edge_vision.evaluate.real_clips import clip_condition, known_clips
from edge_vision.evaluate.scenes import SPLITS, Condition, conditions

_EXAMPLES = f"""\
examples:
  python -m edge_vision.evaluate gate                                   our gate on everything, half an hour
  python -m edge_vision.evaluate gate --conditions pan_tilt --quick     {QUICK_FRAMES} frames of one condition
  python -m edge_vision.evaluate gate --split tune --jobs 4             what a gate may be tuned on
  python -m edge_vision.evaluate gate --video mine.mp4 --gate my_pkg.my_gate:MyGate
  python -m edge_vision.evaluate fit-cascade --video mine.mp4           a stage for your own scene; has --help

What the detector finds on each frame is kept in the cache: a second run needs no detector. A gate is any
class with decide(frame, mono_ns) that returns a bool or an object with `passed`; where it has
inferred(stamp_ns, detections), it is told what was found.
exit codes: 0 done, 1 the detector failed, 2 wrong arguments, no video or no gate, 130 stopped by Ctrl-C
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        return int(options.run(options))
    except EvaluateError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except EdgeVisionError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nevaluate: stopped before anything was done", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m edge_vision.evaluate",
        description="Judge a frame gate against an every-frame detector and rivals; fit a cascade's stage.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="{gate,events,fit-cascade}")
    gate = commands.add_parser("gate", help="delay, recall, F1 and calls of a gate and of its rivals")
    gate.add_argument(
        "--video",
        action="append",
        type=_path,
        metavar="V",
        help="a clip instead of the conditions; may be repeated",
    )
    gate.add_argument(
        "--gate", action="append", metavar="MODULE:CLASS", help=f"a gate beside {OURS}; may be repeated"
    )
    gate.add_argument("--conditions", nargs="+", metavar="NAME", help="only these, by name or kind")
    gate.add_argument("--split", choices=[*SPLITS, "all"], default="all", help="default: %(default)s")
    gate.add_argument("--quick", action="store_true", help=f"only the first {QUICK_FRAMES} frames of each")
    gate.add_argument(
        "--jobs", type=_jobs, default=pool.default_jobs(), help="processes (default: %(default)s)"
    )
    gate.add_argument(
        "--out", type=Path, default=Path("out/gate"), help="folder for the results (default: %(default)s)"
    )
    gate.set_defaults(run=_gate)
    events = commands.add_parser("events", help="pictures of a clip's events, to remove false ones by eye")
    events.add_argument("--video", type=Path, required=True, metavar="V")
    events.add_argument("--out", type=Path, default=Path("out/events"), help="default: %(default)s")
    events.set_defaults(run=_events)
    command.add_parser(commands)
    return parser


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _jobs(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 64:
        raise argparse.ArgumentTypeError(f"expected 1 to 64 processes, got {text}")
    return value


def chosen(options: argparse.Namespace) -> list[tuple[Condition, str | None]]:
    """The conditions that are asked for, each with its video file. Raises EvaluateError."""
    videos = options.video if options.video is not None else (known_clips() if options.split == "all" else [])
    clips = _named_apart([(clip_condition(path), str(path)) for path in videos])
    built = [(condition, None) for condition in conditions(options.split)]
    if options.video is not None and not options.conditions:
        return [*clips]
    if not options.conditions:
        return [*built, *clips]
    found = [*built, *clips]
    names = {name for condition, _ in found for name in (condition.name, condition.kind)}
    unknown = [name for name in options.conditions if name not in names]
    if unknown:
        known = ", ".join(condition.name for condition, _ in found)
        raise EvaluateError(f"expected conditions out of {known}, got {', '.join(unknown)}")
    return [pair for pair in found if {pair[0].name, pair[0].kind} & set(options.conditions)]


def _named_apart(clips: list[tuple[Condition, str]]) -> list[tuple[Condition, str | None]]:
    """Two clips of one name, or one with that of a condition, get numbers."""
    taken = {condition.name for condition in conditions()}
    named: list[tuple[Condition, str | None]] = []
    for condition, video in clips:
        number, name = 1, condition.name
        while name in taken:
            number += 1
            name = f"{condition.name}_{number}"
        taken.add(name)
        named.append((replace(condition, name=name), video))
    return named


def _gate(options: argparse.Namespace) -> int:
    places = tuple(options.gate or ())
    for place in places:
        check_gate(place)
    picked = chosen(options)
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    results: dict[str, dict[str, Any]] = {}
    gates = list(gate_names(places))
    print(report.COLUMNS, flush=True)

    def on_done(name: str, result: dict[str, Any]) -> None:
        results[name] = result
        for gate in gates:
            print(report.table_line(name, result, gate), flush=True)
        for note in result["notes"]:
            print(f"    {note}", flush=True)

    work = [(c, pool.Task(c.name, video, places, options.quick)) for c, video in picked]
    complete = pool.run(work, min(options.jobs, len(work)), on_done)
    ordered = {
        condition.name: results[condition.name] for condition, _ in picked if condition.name in results
    }
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
    from edge_vision.evaluate.sheets import write_sheets

    for line in write_sheets(options.video, options.out):
        print(line)
    return 0
