"""The command `edge-vision optimize auto`."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from edge_vision.core.command_line import with_examples
from edge_vision.errors import UsageError
from edge_vision.offline.output_folder import claim_folder, locked_folder, release_folder
from edge_vision.optimize.command import STUDY
from edge_vision.optimize.report import terminal
from edge_vision.train.auto import minutes, outcome_text, run_auto
from edge_vision.train.auto_state import AutoRequest, remove_results
from edge_vision.train.command import absolute, add_inputs, add_output, progress_and_log
from edge_vision.train.data.time_split import check_clips
from edge_vision.train.option_ranges import AUTO

COMMAND = "optimize-auto"
_EXAMPLES = """\
examples:
  edge-vision optimize auto nanodet --video street.mp4 --budget-ms 20 --hours 1 --out out/auto
  edge-vision optimize auto nanodet --video yard.mp4 --other gate.mp4 --classes person car --budget-ms 15 \\
      --hours 2 --out out/yard
  edge-vision optimize report out/auto
  edge-vision optimize explain out/auto onnxruntime-qat-int8-300x300-t1

Quantizes, then trains (qat, prune, student, search) in the order of what is missing: time or accuracy. Stops
when a candidate is within the budget. The same command continues after a Ctrl-C; with more --hours, too. With
other options, results in DIR are kept unless you pass --restart.
exit codes: 0 done, 1 error, 2 wrong arguments, 3 no candidate satisfies the bounds, 130 stopped by Ctrl-C
"""
_HELP: dict[str, tuple[str, str]] = {
    "budget_ms": ("MS", "latency bound, 95th percentile; without it all steps are tried"),
    "hours": ("H", "for everything"),
    "max_rss_mb": ("MB", "peak memory bound of the result"),
    "max_accuracy_loss": ("SHARE", "bound of the loss of agreement with fp32"),
    "memory_gb": ("GB", "memory bound of the training: beyond it, the batch is halved"),
    "batch": ("N", "samples per training step"),
    "samples": ("N", "augmented images to train on"),
    "seed": ("N", "of the augmentation and the order"),
    "images": ("N", "images for measurement and for calibration, each"),
    "measure_s": ("S", "time to measure each candidate"),
}


def add_to(commands: Any) -> None:
    """Add `auto` to the subcommands of `optimize`."""
    one = commands.add_parser(
        "auto",
        **with_examples("Quantization and training for a budget, in one command.", _EXAMPLES),
        help="quantization and training for a budget, in one command",
    )
    add_inputs(one)
    one.add_argument(
        "--other",
        action="append",
        default=[],
        metavar="VIDEO|BAG|FOLDER",
        help="another scene, for a student",
    )
    one.add_argument("--classes", nargs="+", default=[], metavar="LABEL", help="of a student")
    one.add_argument("--backends", nargs="+", default=[], metavar="B", help="to measure; default: all")
    defaults = {field.name: field.default for field in fields(AutoRequest)}
    for name, (metavar, text) in _HELP.items():
        shown = "" if defaults[name] is None else f" (default: {defaults[name]})"
        flag = f"--{name.replace('_', '-')}"
        one.add_argument(
            flag, type=AUTO[name].parsed, default=defaults[name], metavar=metavar, help=f"{text}{shown}"
        )
    add_output(one)
    one.set_defaults(run=_auto)


def _auto(options: argparse.Namespace) -> int:
    if bool(options.classes) != bool(options.other):
        missing, given = ("--other", "--classes") if options.classes else ("--classes", "--other")
        raise UsageError(f"the following arguments are required with {given}, for a student: {missing}")
    folder = options.folder.absolute()
    request = AutoRequest(
        absolute(options.model),
        tuple(map(absolute, options.video)),
        tuple(map(absolute, options.judge)),
        tuple(map(absolute, options.other)),
        tuple(options.classes),
        backends=tuple(options.backends),
        **{name: getattr(options, name) for name in _HELP},
    )
    clips = (*request.videos, *request.judge, *request.other)
    # Before the folder is made, or results are deleted.
    check_clips(request.videos, request.judge, request.other)
    claim_folder(folder, COMMAND, inputs=(request.model, *clips))
    line, log = progress_and_log()
    with locked_folder(folder, COMMAND):
        if options.restart:
            remove_results(folder)
        try:
            report, state = run_auto(folder, request, log, line.show)
        finally:
            release_folder(folder, COMMAND)
    line.end()
    print(terminal.table(report.results))
    print(terminal.verdict(report))
    for name, one in state.outcomes.items():
        print(f"{name}: {outcome_text(one)}; {one.cpu_s / 60:.1f} CPU-min")
    files = "bundle, ladder.yaml, params.yaml, report.html" if report.decision.chosen else "report.html"
    print(f"in {folder / STUDY}: {files}; {minutes(state.spent_s)} of --hours {request.hours:g}")
    return 0 if report.decision.chosen else 3
