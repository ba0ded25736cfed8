"""The commands `evaluate gate` and `evaluate cascade`: methods on constructed sequences and clips."""

from __future__ import annotations

import argparse
import sys
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_vision.evaluate import plot, tables
from edge_vision.evaluate.chains import savings
from edge_vision.evaluate.chains.chain_run import CHAINS, ChainsRun
from edge_vision.evaluate.chains.stages import cascade_of, hashes
from edge_vision.evaluate.conditions import QUICK_FRAMES
from edge_vision.evaluate.evaluation import Evaluation, Results, evaluate
from edge_vision.evaluate.gate import verdict
from edge_vision.evaluate.gate.gate_run import GateRun
from edge_vision.evaluate.gate.recorded_gate import OURS, check_gate
from edge_vision.evaluate.metrics.builtin import METRICS
from edge_vision.evaluate.metrics.metric import load_metrics
from edge_vision.evaluate.presets import gate_settings
from edge_vision.evaluate.selection import (
    add_command,
    add_condition_arguments,
    add_run_arguments,
    add_set_argument,
    select_conditions,
)
from edge_vision.evaluate.tables import MethodRow

GATE_EXAMPLES = f"""\
examples:
  edge-vision evaluate gate                                   all conditions, half an hour
  edge-vision evaluate gate --conditions pan_tilt --quick     {QUICK_FRAMES} frames of one kind
  edge-vision evaluate gate --split tune --jobs 4             conditions for tuning a gate
  edge-vision evaluate gate --video mine.mp4 --gate my_pkg.my_gate:MyGate
  edge-vision evaluate gate --video mine.mp4 --metric my_pkg.my_metric:MyMetric

The detections on each frame are cached, so a second run needs no detector. A gate is any class with
decide(frame, mono_ns) that returns a bool or an object with `passed`; its optional method
inferred(stamp_ns, detections) receives the detections of each frame that it passed.
exit codes: 0 done, 1 the detector failed, 2 wrong arguments, no video or no gate, 130 stopped by Ctrl-C
"""
CASCADE_EXAMPLES = f"""\
examples:
  edge-vision evaluate cascade                                   all conditions, half an hour
  edge-vision evaluate cascade --conditions pan_tilt --quick     {QUICK_FRAMES} frames of one kind
  edge-vision evaluate cascade --split tune --jobs 4             conditions for choosing settings
  edge-vision evaluate cascade --conditions pan_tilt@777         a new sequence of a known kind
  edge-vision evaluate cascade --video mine.mp4 --set max_delay_ms=200
  edge-vision evaluate cascade --split tune --cascade my_stage   with a fitted stage
  edge-vision evaluate cascade --resume                          continue after Ctrl-C

Chains: {", ".join(CHAINS)}. "full" uses
the gate's settings of config/economy.yaml; --set changes them one by one. The detections on each frame are
cached; each finished condition is stored in the results folder.
exit codes: 0 done, 1 the detector failed, 2 wrong arguments or no video, 130 stopped by Ctrl-C
"""


def add_parsers(commands: Any) -> None:
    """Add both sub-commands to those of `evaluate`."""
    gate = add_command(
        commands,
        "gate",
        lambda options: _run(GateEvaluation(options), options),
        "delay, recall and F1 of a gate, and of baselines at equal cost",
        "Compare gates with the detector on every frame, and with motion baselines and fixed intervals.",
        GATE_EXAMPLES,
    )
    gate.add_argument(
        "--gate",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help=f"a gate beside {OURS}; may be repeated",
    )
    cascade = add_command(
        commands,
        "cascade",
        lambda options: _run(CascadeEvaluation(options), options),
        "CPU cost, recall, F1 and track ids of whole chains and of baselines",
        "Compare whole chains with the detector on every frame, and with fixed intervals.",
        CASCADE_EXAMPLES,
    )
    for name, parser in (("gate", gate), ("cascade", cascade)):
        add_condition_arguments(parser)
        add_run_arguments(parser, f"out/{name}")
    add_set_argument(cascade, "the chain 'full'")
    cascade.add_argument(
        "--cascade",
        nargs="+",
        default=[],
        metavar="BUNDLE",
        help="the stages of the cascade, by name or folder (default: no cascade)",
    )


def _run(evaluation: Evaluation, options: argparse.Namespace) -> int:
    """The exit status. Raises EvaluateError."""
    return evaluate(evaluation, select_conditions(options.conditions, options.split, options.video), options)


class Comparison(Evaluation):
    """Methods on all conditions, with a table and a plot."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Raises EvaluateError for an unusable metric."""
        self._metrics = load_metrics(METRICS, options.metric)
        self.outputs = ("table.md", f"{self.command}.png")

    @abstractmethod
    def rows(self, name: str, condition: Mapping[str, Any]) -> list[MethodRow]:
        """The methods of a condition that are shown; those with targets also on the screen."""

    def heading(self) -> str:
        return tables.heading(self._metrics)

    def lines(self, name: str, result: Mapping[str, Any]) -> list[str]:
        return [tables.line(row, self._metrics) for row in self.rows(name, result) if row.checks]

    def write(self, out: Path, content: Mapping[str, Any]) -> list[Path]:
        table, picture = (out / name for name in self.outputs)
        conditions = content["conditions"]
        rows = [row for name, condition in conditions.items() for row in self.rows(name, condition)]
        table.write_text(tables.markdown(rows, self._metrics))
        if missing := plot.missing_package(f"make evaluate-{self.command}"):
            print(missing, file=sys.stderr)
            return [table]
        plot.PANELS[self.command].draw(conditions, picture)
        return [table, picture]


class GateEvaluation(Comparison):
    """Gates, motion baselines and fixed intervals."""

    command = "gate"

    def __init__(self, options: argparse.Namespace) -> None:
        """Raises EvaluateError for an unusable gate or metric."""
        super().__init__(options)
        for path in options.gate:
            check_gate(path)
        self.run = GateRun(gates=tuple(options.gate), quick=options.quick, metrics=tuple(options.metric))

    def rows(self, name: str, condition: Mapping[str, Any]) -> list[MethodRow]:
        return [
            MethodRow(name, gate.rpartition(":")[2], condition, condition["methods"][gate], checks)
            for gate, checks in condition["verdict"].items()
        ]

    def report(self, results: Results) -> dict[str, Any]:
        return {"headline": verdict.headline(results), "conditions": results}


class CascadeEvaluation(Comparison):
    """Whole chains and fixed intervals."""

    command = "cascade"
    run: ChainsRun

    def __init__(self, options: argparse.Namespace) -> None:
        """Raises EvaluateError for an unusable setting, metric or stage."""
        super().__init__(options)
        cascade_of(options.cascade)  # A stage that cannot be used is reported before the clips are read.
        settings = tuple(sorted(gate_settings("economy", options.changes).items()))
        self.run = ChainsRun(
            settings=settings,
            cascade=tuple(options.cascade),
            quick=options.quick,
            metrics=tuple(options.metric),
        )
        self.bundles = self.run.cascade

    def rows(self, name: str, condition: Mapping[str, Any]) -> list[MethodRow]:
        checks = {"full": condition["checks"]}
        return [
            MethodRow(name, chain, condition, condition["chains"][chain], checks.get(chain, {}))
            for chain in CHAINS
        ]

    def report(self, results: Results) -> dict[str, Any]:
        used = {"full_settings": dict(self.run.settings), "cascade": hashes(self.run.cascade)}
        return {"headline": savings.headline(results), **used, "conditions": results}
