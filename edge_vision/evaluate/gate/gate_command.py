"""The command `python -m edge_vision evaluate gate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_vision.evaluate.evaluation import Evaluation, Results, evaluate
from edge_vision.evaluate.gate import plot, report
from edge_vision.evaluate.gate.gate_run import GateRun, gate_paths
from edge_vision.evaluate.gate.recorded_gate import OURS, check_gate
from edge_vision.evaluate.metrics.builtin import METRICS
from edge_vision.evaluate.metrics.metric import load_metrics
from edge_vision.evaluate.process_pool import QUICK_FRAMES
from edge_vision.evaluate.selection import (
    add_command,
    add_condition_arguments,
    add_run_arguments,
    select_conditions,
)

EXAMPLES = f"""\
examples:
  python -m edge_vision evaluate gate                                   all conditions, half an hour
  python -m edge_vision evaluate gate --conditions pan_tilt --quick     {QUICK_FRAMES} frames of one kind
  python -m edge_vision evaluate gate --split tune --jobs 4             conditions for tuning a gate
  python -m edge_vision evaluate gate --video mine.mp4 --gate my_pkg.my_gate:MyGate
  python -m edge_vision evaluate gate --video mine.mp4 --metric my_pkg.my_metric:MyMetric

The detections on each frame are cached, so a second run needs no detector. A gate is any class with
decide(frame, mono_ns) that returns a bool or an object with `passed`; its optional method
inferred(stamp_ns, detections) receives the detections of each frame that it passed.
exit codes: 0 done, 1 the detector failed, 2 wrong arguments, no video or no gate, 130 stopped by Ctrl-C
"""


def add_parser(commands: Any) -> None:
    """Add the sub-command to those of `evaluate`."""
    parser = add_command(
        commands,
        "gate",
        run_gate,
        "delay, recall and F1 of a gate, and of baselines at equal cost",
        "Compare gates with the detector on every frame, and with motion baselines and fixed intervals.",
        EXAMPLES,
    )
    parser.add_argument(
        "--gate",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help=f"a gate beside {OURS}; may be repeated",
    )
    add_condition_arguments(parser)
    add_run_arguments(parser, "out/gate")


def run_gate(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit status. Raises EvaluateError."""
    for path in options.gate:
        check_gate(path)
    evaluation = GateEvaluation(options)
    return evaluate(evaluation, select_conditions(options.conditions, options.split, options.video), options)


class GateEvaluation(Evaluation):
    """Gates and motion baselines on all conditions."""

    command, outputs = "gate", ("table.md", "gate.png")
    run: GateRun

    def __init__(self, options: argparse.Namespace) -> None:
        """Raises EvaluateError for an unusable metric."""
        self.run = GateRun(tuple(options.gate), options.quick, tuple(options.metric))
        self._metrics = load_metrics(METRICS, options.metric)

    def heading(self) -> str:
        return report.heading(self._metrics)

    def lines(self, name: str, result: Mapping[str, Any]) -> list[str]:
        return [report.line(name, result, gate, self._metrics) for gate in gate_paths(self.run.gates)]

    def report(self, results: Results) -> dict[str, Any]:
        return {"headline": report.headline(results), "conditions": results}

    def write(self, out: Path, content: Mapping[str, Any]) -> list[Path]:
        (out / "table.md").write_text(report.markdown(content["conditions"], self._metrics))
        if missing := plot.missing_package():
            print(missing, file=sys.stderr)
            return [out / "table.md"]
        plot.draw(content["conditions"], out / "gate.png")
        return [out / "table.md", out / "gate.png"]
