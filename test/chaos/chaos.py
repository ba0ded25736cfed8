#!/usr/bin/env python3
"""Disturb the real pipeline: `make chaos MINUTES=30`. Prints every check, a table, and writes a report.

kill          SIGKILL to each node in a process of its own, to the whole pipeline, and during its start
stop          SIGSTOP for ten seconds to each node and to the whole pipeline, then SIGCONT
disk_full     no room for cache, temporary files and logs; then room again; then none
clock_jump    stamps that jump by hours, repeat or are zero; a simulated clock that jumps and stands still
camera_loss   the camera is killed and comes back with another size and encoding; a file vanishes
overload      a camera at twice the detector's capacity, which is measured first, for the remaining minutes:
              slopes of memory, open files, threads and age

In each scenario, the ledger must add up in every report of every node, and no process and no temporary file
may be left behind. Logs of the processes are beside the report.

Exit status: 0 if all checks passed, 1 if one failed, 2 for wrong arguments, 130 after Ctrl-C, which keeps the
results up to then.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from chaos_run import ChaosRun, pytest
from run_cache import link_shared

from edge_vision.bundles.store import cache_dir
from edge_vision.errors import OutputError
from edge_vision.offline.output_folder import claim_folder
from edge_vision.offline.provenance import machine, versions, write_json

SCENARIOS = {
    "kill": "process_scenarios:kill",
    "stop": "process_scenarios:stop",
    "disk_full": "disk_scenario:disk_full",
    "clock_jump": "camera_scenarios:clock_jump",
    "camera_loss": "camera_scenarios:camera_loss",
    "overload": "overload_scenario:overload",
}
Result = dict[str, Any]
_EXAMPLES = """examples:
  python test/chaos/chaos.py --minutes 30                                      all, 35 minutes at the most
  python test/chaos/chaos.py --scenarios kill stop --out out/mine/report.json  two scenarios, 3 minutes
  python test/chaos/chaos.py --minutes 30 --scenarios overload                 30 minutes of overload"""


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    folder = options.out.parent
    try:
        claim_folder(folder, "chaos", (options.out.name, *SCENARIOS))
    except OutputError as error:
        parser.error(str(error))
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    report = {"minutes": options.minutes, "machine": machine(), "versions": versions()}
    results: list[Result] = []
    try:
        with tempfile.TemporaryDirectory(prefix="edge_vision_chaos_") as own:
            link_shared(cache_dir(), Path(own))
            os.environ["EDGE_VISION_CACHE"] = own
            interrupted = _run_all(options, results)
    finally:
        report["load_1m_end"] = round(os.getloadavg()[0], 2)
        write_json(options.out, {**report, "results": results})
    print("\n" + "\n".join(map(line, results)) + f"\n{options.out}")
    return 130 if interrupted else int(any(failed(result) for result in results))


def _run_all(options: argparse.Namespace, results: list[Result]) -> bool:
    """Append a result per scenario. Returns whether Ctrl-C ended the run."""
    until_s = time.monotonic() + options.minutes * 60
    try:
        for name in options.scenarios:
            print(name, flush=True)
            results.append({"scenario": name})
            shutil.rmtree(options.out.parent / name, ignore_errors=True)
            seconds = max(60.0, until_s - time.monotonic())
            run_scenario(results[-1], (options.out.parent / name).absolute(), seconds=seconds)
    except KeyboardInterrupt:
        return True
    return False


def run_scenario(result: Result, folder: Path, short: bool = False, seconds: float = 60.0) -> Result:
    """Fill in the result of the scenario that it names: checks, a summary, and why it was skipped, else "".

    Its processes use ROS_DOMAIN_ID and EDGE_VISION_CACHE. seconds: of the overload.
    """
    module, _, function = SCENARIOS[result["scenario"]].partition(":")
    started_s = time.monotonic()
    result |= {"skipped": "", "interrupted": True}
    run = ChaosRun(folder, int(os.environ["ROS_DOMAIN_ID"]), short, seconds)
    try:
        with run:
            getattr(importlib.import_module(module), function)(run)
        result["interrupted"] = False
    except pytest.skip.Exception as reason:
        result |= {"skipped": str(reason), "interrupted": False}
    finally:
        result |= {"seconds": round(time.monotonic() - started_s, 1), **run.report()}
    return result


def failed(result: Result) -> list[Result]:
    """The checks that failed."""
    return [check for check in result["checks"] if not check["ok"]]


def line(result: Result) -> str:
    """The result of a scenario as text, with the checks that failed."""
    if result["skipped"]:
        return f"{result['scenario']:<12} skipped: {result['skipped']}"
    wrong = failed(result)
    state = "interrupted" if result["interrupted"] else "FAIL" if wrong else "ok"
    counts = f"{len(result['checks'])} checks  {len(wrong)} failed  {result['seconds']} s"
    texts = [
        f"\n  FAIL {one['name']}: expected {one['expected']}, got {one['got'].rstrip()}" for one in wrong
    ]
    return f"{result['scenario']:<12} {state:<12} {counts}{''.join(texts)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chaos.py",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add: Any = parser.add_argument
    add("--minutes", type=float, default=30.0, metavar="M", help="of all scenarios (default: %(default)g)")
    add(
        "--scenarios",
        nargs="+",
        choices=list(SCENARIOS),
        default=list(SCENARIOS),
        metavar="NAME",
        help=f"some of {', '.join(SCENARIOS)} (default: all)",
    )
    add(
        "--out", type=Path, default=Path("out/chaos/report.json"), metavar="FILE", help="default: %(default)s"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
