"""The command `python -m edge_vision evaluate`, and its sub-commands `gate`, `events` and `metrics`."""

from __future__ import annotations

import argparse
import json
import signal
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
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.fit import command as fit_command
from edge_vision.evaluate.gate import plot, report
from edge_vision.evaluate.gate.gate_run import GateRun, gate_paths
from edge_vision.evaluate.gate.recorded_gate import OURS, check_gate
from edge_vision.evaluate.metrics.builtin import METRICS
from edge_vision.evaluate.metrics.metric import load_metrics
from edge_vision.evaluate.process_pool import QUICK_FRAMES
from edge_vision.evaluate.selection import add_selection_arguments, select_conditions, video_argument
from edge_vision.evaluate.tables import metrics_table

_EXAMPLES = f"""\
examples:
  python -m edge_vision evaluate gate                                   all conditions, half an hour
  python -m edge_vision evaluate gate --conditions pan_tilt --quick     {QUICK_FRAMES} frames of one kind
  python -m edge_vision evaluate gate --split tune --jobs 4             conditions for tuning a gate
  python -m edge_vision evaluate gate --video mine.mp4 --gate my_pkg.my_gate:MyGate
  python -m edge_vision evaluate gate --video mine.mp4 --metric my_pkg.my_metric:MyMetric
  python -m edge_vision evaluate fit-cascade --video mine.mp4           a stage for your own scene; has --help

The detections on each frame are cached, so a second run needs no detector. A gate is any class with
decide(frame, mono_ns) that returns a bool or an object with `passed`; its optional method
inferred(stamp_ns, detections) receives the detections of each frame that it passed.
exit codes: 0 done, 1 the detector failed, 2 wrong arguments, no video or no gate, 130 stopped by Ctrl-C
"""


@printable_output()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    options = build_parser().parse_args(argv)
    # Ctrl-C stops the workers and writes what is done, instead of ending this process at once.
    signal.signal(signal.SIGINT, signal.default_int_handler)
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


def build_parser() -> argparse.ArgumentParser:
    """The parser of all sub-commands."""
    parser = argparse.ArgumentParser(
        prog="python -m edge_vision evaluate",
        description="Evaluate a gate or a whole chain against the every-frame detector; fit a cascade stage.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="{gate,cascade,events,metrics,fit-cascade}")
    gate = commands.add_parser("gate", help="delay, recall and F1 of a gate, and of baselines at equal cost")
    gate.add_argument(
        "--gate",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help=f"a gate beside {OURS}; may be repeated",
    )
    add_selection_arguments(gate, "out/gate")
    gate.set_defaults(run=_run_gate)
    cascade_command.add_parser(commands)
    events = commands.add_parser("events", help="contact sheets of a clip's events, to review them by eye")
    events.add_argument("--video", type=video_argument, required=True, metavar="V")
    events.add_argument("--out", type=Path, default=Path("out/events"), help="default: %(default)s")
    events.set_defaults(run=_run_events)
    metrics = commands.add_parser("metrics", help="list the metrics of the reports, as a Markdown table")
    metrics.set_defaults(run=_run_metrics)
    fit_command.add_parser(commands)
    return parser


def _run_gate(options: argparse.Namespace) -> int:
    for path in options.gate:
        check_gate(path)
    metrics = load_metrics(METRICS, options.metric)
    selected = select_conditions(options.conditions, options.split, options.video)
    videos = [video for _, video in selected if video]
    claim_folder(options.out, "evaluate-gate", ("report.json", "table.md", "gate.png"), videos)
    started = time.monotonic()
    results: dict[str, dict[str, Any]] = {}
    print(report.heading(metrics), flush=True)

    def on_done(name: str, result: dict[str, Any]) -> None:
        results[name] = result
        for gate in gate_paths(options.gate):
            print(printable(report.line(name, result, gate, metrics)), flush=True)
        for note in result["notes"]:
            print(f"    {note}", flush=True)

    run = GateRun(tuple(options.gate), options.quick, tuple(options.metric))
    work = [(one.condition, process_pool.Task(one.condition.name, one.video, run)) for one in selected]
    complete = process_pool.evaluate_all(work, min(options.jobs, len(work)), on_done)
    names = [one.condition.name for one in selected]
    ordered = {name: results[name] for name in names if name in results}
    if not ordered:
        print("evaluate: stopped before a condition was done; detections stay cached", file=sys.stderr)
        return 130
    seconds = time.monotonic() - started
    _write(
        options.out,
        report.report(ordered, options.quick, complete, seconds),
        report.markdown(ordered, metrics),
    )
    return 0 if complete else 130


def _write(out: Path, content: dict[str, Any], markdown: str) -> None:
    """Write report.json, table.md and the plot, and print the headline."""
    files = [out / "report.json", out / "table.md"]
    files[0].write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    files[1].write_text(markdown)
    print("\n" + content["headline"])
    if missing := plot.missing_package():
        print(missing, file=sys.stderr)
    else:
        files.append(out / "gate.png")
        plot.draw(content["conditions"], files[-1])
    stopped = "" if content["complete"] else "; stopped: not all conditions"
    print(f"{', '.join(map(str, files))}; {content['seconds']:.0f} s{stopped}")


def _run_events(options: argparse.Namespace) -> int:
    from edge_vision.evaluate.reference.contact_sheets import write_sheets

    claim_folder(options.out, "evaluate-events", ("entries.json", "sheet_*.png"), [options.video])
    for line in write_sheets(options.video, options.out):
        print(line)
    return 0


def _run_metrics(options: argparse.Namespace) -> int:
    print(metrics_table(METRICS), end="")
    return 0
