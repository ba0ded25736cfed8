#!/usr/bin/env python3
"""Measures the diagnostics: `make bench-diagnostics`. Prints a table, and writes out/bench/diagnostics.json.

cpu_percent           of one core: what a pipeline with the diagnostics node takes more than one without, both
                      in a process each, playing the same clip in turns, every image inferred, while another
                      process listens to /diagnostics. The median of the pairs. cpu_percent_callbacks is the
                      CPU time inside the node's own callbacks.
causes                each of the causes is provoked with real nodes, several times; the longest time from the
                      moment when the fault is there and all nodes are up until it is named on /diagnostics.
false_alarms          the clip played at real time by the executable, from before its start until after its
                      end: entries of nodes, processes and `output` that are not OK, and warnings in its log.
                      Limits of the machine (`system`) are apart: where others load it, they are true.
rss_slope_kb_per_min  of the same process, from /proc; Theil and Sen, the first fifth left out.
agreement             of /diagnostics with what was read from outside meanwhile, as a share of the latter:
                      cpu, rss, fds against /proc, rate against a subscriber's count of `detections`; and
                      delay: a camera that stamps its images 300 ms in the past, against one that does not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from parts.benchmark import finish, make_parser, new_result
from parts.common import REPO, Row, at_most, measured, part_command, script_environment

from edge_vision.evaluate.live.pipeline_process import isolate_domain
from edge_vision.offline.provenance import write_json

CPU_PERCENT, CAUSE_S, AGREEMENT = 1.0, 3.0, 0.05
# No growth: less than a leak of one small object per frame at 10 Hz would take.
RSS_KB_PER_MIN = 50.0
_EXAMPLES = """examples:
  python bench/diagnostics.py                   about 20 minutes
  python bench/diagnostics.py --minutes 1 --quick
  python bench/diagnostics.py --only causes
  python bench/diagnostics.py --strict          exit status 1 where a target is missed"""


def main() -> int:
    options = _parser().parse_args()
    isolate_domain()
    result = new_result(options.video) | {"quick": options.quick, "minutes": options.minutes}
    for name in options.only or PARTS:
        print(f"[{time.strftime('%H:%M:%S')}] {name}: {PARTS[name].__doc__}", flush=True)
        result |= PARTS[name](options)
        result.setdefault("load_1m", {})[name] = round(os.getloadavg()[0], 2)
        write_json(options.out, result)
    load = ", ".join(f"{value} after {name}" for name, value in result["load_1m"].items())
    return finish(options, result, _rows(result), f"load {load}")


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("diagnostics", __doc__, _EXAMPLES)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the long run (default: %(default)g)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns, each cause once")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="only these measurements")
    return parser


def cost(options: argparse.Namespace) -> dict[str, Any]:
    """a pipeline with and one without diagnostics, in turns"""
    from edge_vision.nodes.observers.diagnostics_listener import DiagnosticsListener

    pairs, seconds = (2, 10.0) if options.quick else (8, 16.0)
    both = {name: _Player(name, options.video) for name in ("with", "without")}
    taken: dict[str, list[float]] = {"with": [], "without": []}
    inside: list[float] = []
    heard = 0

    def hear(statuses: Any) -> None:
        nonlocal heard
        heard += 1

    try:
        with DiagnosticsListener(hear) as listener:
            for i in range(pairs):
                for name in ("with", "without") if i % 2 else ("without", "with"):
                    one = both[name].play(seconds, listener)
                    taken[name].append(100.0 * one["cpu_s"] / one["wall_s"])
                    if name == "with":
                        inside.append(100.0 * one["diagnostics_s"] / one["wall_s"])
    finally:
        for player in both.values():
            player.end()
    if not heard:
        raise SystemExit("expected /diagnostics of the pipeline with diagnostics, nothing came")
    differences = [a - b for a, b in zip(taken["with"], taken["without"], strict=True)]
    return {
        "cpu_percent": statistics.median(differences),
        "cpu_percent_pairs": differences,
        "cpu_percent_callbacks": statistics.median(inside),
        "cpu_percent_pipeline": {name: statistics.median(values) for name, values in taken.items()},
    }


class _Player:
    """bench/parts/diagnostics/cost.py in a process of its own."""

    def __init__(self, namespace: str, video: Path) -> None:
        command = part_command("diagnostics/cost.py", "--video", video)
        command += ["--namespace", namespace, *(["--no-diagnostics"] if namespace == "without" else [])]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=script_environment()
        )
        self._read("ready")

    def play(self, seconds: float, listener: Any) -> dict[str, float]:
        """Have it play for this long, and listen: what it took."""
        self._write("start")
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            listener.spin(0.2)
        self._write("stop")
        figures: dict[str, float] = json.loads(self._read("{"))
        return figures

    def _write(self, line: str) -> None:
        assert self._child.stdin
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    def _read(self, start: str) -> str:
        assert self._child.stdout
        line = self._child.stdout.readline()
        if not line.startswith(start):
            raise SystemExit(f"diagnostics/cost.py: expected {start}..., got '{line.strip()}', see above")
        return line

    def end(self) -> None:
        if self._child.poll() is None:
            self._write("end")
            try:
                self._child.wait(10)
            except subprocess.TimeoutExpired:
                self._child.kill()


def causes(options: argparse.Namespace) -> dict[str, Any]:
    """each cause provoked with real nodes"""
    sys.path[:0] = [str(REPO / "test"), str(REPO / "test" / "unit")]
    from cause_cases import PROVOKED

    runs: dict[str, list[float]] = {}
    messages: dict[str, str] = {}
    domain = int(os.environ["ROS_DOMAIN_ID"])
    for n in range(1 if options.quick else 3):
        for work in PROVOKED:
            name = work.__name__
            one = measured("diagnostics/causes.py", name, "--domain", domain)
            runs.setdefault(name, []).append(one["seconds"])
            messages[name] = one["message"]
            print(f"  {n + 1}: {name} {one['seconds']:.2f} s", flush=True)
    longest: dict[str, float] = {}
    for work, cause in PROVOKED.items():
        longest[cause] = max(longest.get(cause, 0.0), *runs[work.__name__])
    # A silent camera and unexplained silence become faults only after some seconds.
    beside = {name: longest.pop(name) for name in ("publisher_silent", "nothing_published")}
    return {"causes": longest, "causes_beside": beside, "causes_runs": runs, "causes_messages": messages}


def long_run(options: argparse.Namespace) -> dict[str, Any]:
    """the clip at real time: false alarms, memory, agreement with /proc and a subscriber"""
    from parts.diagnostics.healthy import watch

    return watch(options.video, options.minutes)


def delay(options: argparse.Namespace) -> dict[str, Any]:
    """a camera that stamps its images 300 ms in the past"""
    from parts.diagnostics.healthy import delayed

    return delayed(options.video, 2 if options.quick else 4)


PARTS = {"cost": cost, "causes": causes, "long_run": long_run, "delay": delay}


def _rows(result: dict[str, Any]) -> list[Row]:
    rows: list[Row] = []
    if "cpu_percent" in result:
        both = result["cpu_percent_pipeline"]
        note = f"{both['with']:.1f} with, {both['without']:.1f} without; in callbacks "
        note += f"{result['cpu_percent_callbacks']:.2f}; pairs " + ", ".join(
            f"{value:.1f}" for value in result["cpu_percent_pairs"]
        )
        rows.append(at_most("cpu_percent", result["cpu_percent"], CPU_PERCENT, "% of a core", note))
    for name, seconds in result.get("causes", {}).items():
        rows.append(at_most(name, seconds, CAUSE_S, "s"))
    for name, seconds in result.get("causes_beside", {}).items():
        rows.append(Row(name, seconds, "s", note="not one of the thirteen: silent for 3 s first"))
    if "false_alarms" in result:
        note = f"{result['played_s'] / 60:.1f} min, {result['reports']} reports; of the machine: "
        note += f"{len(result['system_alarms'])}"
        rows.append(at_most("false_alarms", result["false_alarms"], 0, "", note))
        note = f"{result['rss_kb'][0]} to {result['rss_kb'][1]} KB"
        rows.append(
            at_most("rss_slope_kb_per_min", result["rss_slope_kb_per_min"], RSS_KB_PER_MIN, "KB/min", note)
        )
    for part in ("agreement", "delay_agreement"):
        for name, share in result.get(part, {}).items():
            reported, outside = result[f"{part}_figures"][name]
            note = f"{reported:.4g} reported, {outside:.4g} measured from outside"
            rows.append(at_most(f"agreement, {name}", abs(share), AGREEMENT, "", note))
    return rows


if __name__ == "__main__":
    sys.exit(main())
