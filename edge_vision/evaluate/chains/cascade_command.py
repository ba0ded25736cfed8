"""The command `python -m edge_vision evaluate cascade`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_vision.evaluate.chains import cost_plot, report
from edge_vision.evaluate.chains.chain_run import ChainsRun
from edge_vision.evaluate.chains.stages import cascade_of, hashes
from edge_vision.evaluate.evaluation import Evaluation, Results, evaluate
from edge_vision.evaluate.gate import plot
from edge_vision.evaluate.metrics.builtin import METRICS
from edge_vision.evaluate.metrics.metric import load_metrics
from edge_vision.evaluate.presets import gate_settings
from edge_vision.evaluate.process_pool import QUICK_FRAMES
from edge_vision.evaluate.selection import (
    add_command,
    add_condition_arguments,
    add_run_arguments,
    add_set_argument,
    select_conditions,
)

EXAMPLES = f"""\
examples:
  python -m edge_vision evaluate cascade                                   all conditions, half an hour
  python -m edge_vision evaluate cascade --conditions pan_tilt --quick     {QUICK_FRAMES} frames of one kind
  python -m edge_vision evaluate cascade --split tune --jobs 4             conditions for choosing settings
  python -m edge_vision evaluate cascade --conditions pan_tilt@777         a new sequence of a known kind
  python -m edge_vision evaluate cascade --video mine.mp4 --set max_delay_ms=200
  python -m edge_vision evaluate cascade --split tune --cascade my_stage   with a fitted stage
  python -m edge_vision evaluate cascade --resume                          continue after Ctrl-C

Chains: every_frame (the detector alone), fixed_interval_tracker, gate, gate_tracking, gate_cascade, full.
"full" uses the gate's settings of config/economy.yaml; --set changes them one by one. The detections on each
frame are cached; each finished condition is stored in the results folder.
exit codes: 0 done, 1 the detector failed, 2 wrong arguments or no video, 130 stopped by Ctrl-C
"""


def add_parser(commands: Any) -> None:
    """Add the sub-command to those of `evaluate`."""
    parser = add_command(
        commands,
        "cascade",
        run_cascade,
        "CPU cost, recall, F1 and track ids of whole chains and of baselines",
        "Compare whole chains with the detector on every frame, and with fixed intervals.",
        EXAMPLES,
    )
    add_condition_arguments(parser)
    add_run_arguments(parser, "out/cascade")
    add_set_argument(parser, "the chain 'full'")
    parser.add_argument(
        "--cascade",
        nargs="+",
        default=[],
        metavar="BUNDLE",
        help="the stages of the cascade, by name or folder (default: no cascade)",
    )


def run_cascade(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit status. Raises EvaluateError."""
    # Settings that cannot be used are reported before the clips are read.
    cascade_of(options.cascade)
    evaluation = CascadeEvaluation(options)
    selected = select_conditions(options.conditions, options.split, options.video)
    return evaluate(evaluation, selected, options)


class CascadeEvaluation(Evaluation):
    """Whole chains on all conditions."""

    command, outputs = "cascade", ("table.md", "cascade.png")
    run: ChainsRun

    def __init__(self, options: argparse.Namespace) -> None:
        """Raises EvaluateError for an unusable setting, metric or stage."""
        settings = tuple(sorted(gate_settings("economy", options.changes).items()))
        self.run = ChainsRun(options.quick, settings, tuple(options.cascade), tuple(options.metric))
        self.key = repr(hashes(self.run.cascade))
        self._metrics = load_metrics(METRICS, options.metric)

    def heading(self) -> str:
        return report.heading(self._metrics)

    def lines(self, name: str, result: Mapping[str, Any]) -> list[str]:
        return [report.line(name, result, self._metrics)]

    def report(self, results: Results) -> dict[str, Any]:
        used = {"full_settings": dict(self.run.settings), "cascade": hashes(self.run.cascade)}
        return {"headline": report.headline(results), **used, "conditions": results}

    def write(self, out: Path, content: Mapping[str, Any]) -> list[Path]:
        (out / "table.md").write_text(report.markdown(content["conditions"], self._metrics))
        if missing := plot.missing_package("make evaluate-cascade"):
            print(missing, file=sys.stderr)
            return [out / "table.md"]
        cost_plot.draw(content["conditions"], out / "cascade.png")
        return [out / "table.md", out / "cascade.png"]
