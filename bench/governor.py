#!/usr/bin/env python3
"""Measures the governor: `make bench-governor`. Prints a table, and writes out/bench/governor.json.

needed        CPU time of the whole process, in percent of all cores, without a limit: the video at its own
              rate, the gate at its defaults.
held at N %   the same with cpu_budget_percent at this share of `needed`, as a ratio to the budget. Measured
              from outside (/proc), after --settle seconds.
lost frames   frames without a fate when the pipeline has been stopped; the ledger must balance.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from parts.benchmark import finish, make_parser, new_result
from parts.common import Row, at_most

from edge_vision.evaluate.live.pipeline_process import PipelineProcess, isolate_domain
from edge_vision.evaluate.live.run_record import RunRecord
from edge_vision.offline.provenance import write_json

SHARES = (0.75, 0.5, 0.3)
MAX_ERROR = 0.1
LONGEST_START_S = 60.0
UNREACHABLE = "below the load with one inference per max_blind_ms, as reported"
_EXAMPLES = """examples:
  python bench/governor.py                  about six minutes
  python bench/governor.py --shares 0.5     half of the needed CPU time only
  python bench/governor.py --strict         exit status 1 where a target is missed"""


def main() -> int:
    options = _parser().parse_args()
    isolate_domain()
    result = new_result(options.video) | {"budgets": [], "seconds": options.seconds}
    result["needed"] = needed = play(options, 0.0)
    print(f"needed: {needed['cpu_percent']:.1f} % of {os.cpu_count()} cores", flush=True)
    for share in options.shares:
        one = {"share": share, **play(options, share * needed["cpu_percent"])}
        print(f"held at {share:.0%}: {one['cpu_percent']:.1f} of {one['budget_percent']:.1f} %", flush=True)
        result["budgets"].append(one)
        write_json(options.out, result)
    return finish(options, result, _rows(result))


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("governor", __doc__, _EXAMPLES)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of the needed CPU time")
    parser.add_argument("--seconds", type=float, default=60.0, help="measured, each")
    parser.add_argument("--settle", type=float, default=30.0, help="not measured, before")
    parser.add_argument("--ladder", help="ladder.yaml of the optimizer")
    return parser


def play(options: argparse.Namespace, budget_percent: float) -> dict[str, Any]:
    """The video through the pipeline, in a process of its own, with this budget; 0 = none."""
    from edge_vision.nodes.observers.pipeline_monitor import PipelineMonitor

    record = RunRecord()
    with tempfile.TemporaryDirectory() as folder, PipelineMonitor({"": record}) as monitor:
        monitor.spin(0.5)
        given = {
            "cpu_budget_percent": budget_percent,
            **({"ladder": options.ladder} if options.ladder else {}),
        }
        parameters = [text for key, value in given.items() for text in ("-p", f"gate:{key}:={value}")]
        arguments = ["--source", str(options.video), "--loop", "--backend", "onnxruntime"]
        process = PipelineProcess([*arguments, "--ros-args", *parameters], Path(folder) / "log")
        try:
            while not _begun(record, process):
                monitor.spin(0.1)
            monitor.spin(options.settle)
            cpu_percent = _cpu_percent(monitor, process, options.seconds)
            gate, text = dict(record.statuses["gate"]), record.texts["gate"]
        finally:
            process.stop(meanwhile=monitor.spin)
        monitor.spin(0.5)
        steps = [line for line in process.last_lines(10_000) if "budget of" in line or "ladder" in line]
    governor = {key: value for key, value in gate.items() if key.startswith("governor.")}
    return {
        "budget_percent": budget_percent,
        "cpu_percent": cpu_percent,
        "governor": governor,
        "text": text,
        "steps": steps,
        "ledger": record.ledger,
        "reasons": record.reasons,
    }


def _begun(record: RunRecord, process: PipelineProcess) -> bool:
    """Whether the first detection has arrived. Raises SystemExit if none comes."""
    late = time.monotonic() - process.started_s > LONGEST_START_S
    if process.returncode is not None or late:
        raise SystemExit("no detection came; the log ends in\n" + "\n".join(process.last_lines()))
    return record.first_detection_s is not None


def _cpu_percent(monitor: Any, process: PipelineProcess, seconds: float) -> float:
    """Mean CPU time of the process, in percent of all cores."""
    before_s, cpu_s = time.monotonic(), process.measure().cpu_s
    monitor.spin(seconds)
    after_s, cpu_after_s = time.monotonic(), process.measure().cpu_s
    if cpu_s is None or cpu_after_s is None or process.returncode is not None:
        raise SystemExit("the pipeline has ended; its log ends in\n" + "\n".join(process.last_lines()))
    return 100.0 * (cpu_after_s - cpu_s) / (after_s - before_s) / (os.cpu_count() or 1)


def _rows(result: dict[str, Any]) -> list[Row]:
    rows = [Row("needed", result["needed"]["cpu_percent"], "%", note=f"of {os.cpu_count()} cores")]
    for one in result["budgets"]:
        ratio, ledger = one["cpu_percent"] / one["budget_percent"], one["ledger"]
        note = (
            f"{one['governor'].get('governor.level')}; inferred {ledger['inferred']} of {ledger['received']}"
        )
        name, held = f"held at {one['share']:.0%}", abs(ratio - 1.0) <= MAX_ERROR
        if "although only one frame in max_blind_ms" in one["text"]:  # It says that this cannot be held.
            rows.append(Row(name, ratio, "x budget", note=f"{note}; {UNREACHABLE}"))
        else:
            rows.append(Row(name, ratio, "x budget", f"1 +- {MAX_ERROR:g}", held, note))
        ended = sum(ledger[fate] for fate in ledger if fate != "received")
        rows.append(at_most("  lost frames", abs(ledger["received"] - ended), 0, "frames"))
    return rows


if __name__ == "__main__":
    sys.exit(main())
