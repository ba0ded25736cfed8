"""The command `python -m edge_vision evaluate`, and its sub-commands `events` and `metrics`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from edge_vision.core.command_line import complete_help, run_command, with_examples
from edge_vision.core.printable import printable_output
from edge_vision.errors import OutputError
from edge_vision.evaluate import comparison
from edge_vision.evaluate.accuracy import accuracy_command
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.fit import command as fit_command
from edge_vision.evaluate.metrics.builtin import METRICS
from edge_vision.evaluate.schedule import schedule_command
from edge_vision.evaluate.selection import add_command, video_argument
from edge_vision.evaluate.tables import metrics_table
from edge_vision.offline.output_folder import claim_folder

_EPILOG = """\
examples:
  edge-vision evaluate schedule                       the presets on real clips, and fixed intervals
  edge-vision evaluate accuracy nanodet               average precision against labels
  edge-vision evaluate events --video street.mp4      contact sheets, in out/events
  edge-vision evaluate events --video street.mp4 --out out/street
  edge-vision evaluate metrics                        what the reports contain
  edge-vision evaluate metrics > metrics.md
  edge-vision evaluate gate --help                    each command lists its own examples

exit codes: 0 done, 1 the detector failed, 2 wrong arguments or no video, 130 stopped by Ctrl-C
"""


@printable_output()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    stopped = "evaluate: stopped before anything was done"
    return run_command(build_parser().parse_args(argv), "evaluate", stopped, (EvaluateError, OutputError))


def build_parser() -> argparse.ArgumentParser:
    """The parser of all sub-commands."""
    parser = argparse.ArgumentParser(
        prog="edge-vision evaluate",
        **with_examples(
            "Evaluate schedules, gates and whole chains against the every-frame detector, detectors against "
            "labels; fit a cascade stage.",
            _EPILOG,
        ),
    )
    commands = parser.add_subparsers(
        required=True, metavar="{schedule,gate,cascade,accuracy,events,metrics,fit-cascade}"
    )
    schedule_command.add_parser(commands)
    comparison.add_parsers(commands)
    accuracy_command.add_parser(commands)
    summary = "contact sheets of a clip's events, to review them by eye"
    events = add_command(commands, "events", _run_events, summary)
    events.add_argument("--video", type=video_argument, required=True, metavar="V")
    events.add_argument("--out", type=Path, default=Path("out/events"), help="default: %(default)s")
    add_command(commands, "metrics", _run_metrics, "list the metrics of the reports, as a Markdown table")
    fit_command.add_parser(commands)
    return complete_help(parser, commands)


def _run_events(options: argparse.Namespace) -> int:
    from edge_vision.evaluate.reference.contact_sheets import write_sheets

    claim_folder(options.out, "evaluate-events", ("entries.json", "sheet_*.png"), [options.video])
    for line in write_sheets(options.video, options.out):
        print(line)
    return 0


def _run_metrics(options: argparse.Namespace) -> int:
    print(metrics_table(METRICS), end="")
    return 0
