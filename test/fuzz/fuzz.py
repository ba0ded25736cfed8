#!/usr/bin/env python3
"""Fuzz the inputs that others control: `make fuzz MINUTES=5`. Prints a table and writes out/fuzz/report.json.

Each target passes mutants of the corpus to the code that reads manifests, graphs, compressed images,
parameters, frame events or detections. Failures are exceptions that the code does not document, refusals of
over 4000 characters, the death of the target's process, over 2 s of CPU time for a mutant, and growth of the
peak memory by over 200 MB. Graphs may kill the child process of their trial (trial_deaths) or exceed its
limits (trial_limits). The target live sends images, messages and parameters to running nodes. It also fails
if the process of a node ends, if its peak memory grows by over 200 MB, or if its status, sent every 1000 ms,
is late by over 2 s (status_gap_ms). Each failure names a file with the mutant.

Exit status: 0 without a failure, 1 with one, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

from campaign import Result, run_target  # noqa: E402
from targets import TARGETS, target_class  # noqa: E402

from edge_vision.errors import OutputError  # noqa: E402
from edge_vision.offline.output_folder import claim_folder  # noqa: E402
from edge_vision.offline.provenance import machine, versions, write_json  # noqa: E402

_EXAMPLES = """examples:
  python test/fuzz/fuzz.py --minutes 5 --targets manifests images     two targets, 2.5 minutes each
  python test/fuzz/fuzz.py --count 10000                              10,000 mutants of each target
  python test/fuzz/fuzz.py --replay out/fuzz/images/failure_17.bin --targets images"""
_COLUMNS = (
    "mutants",
    "accepted",
    "failed",
    "seconds",
    "slowest_ms",
    "rss_growth_mb",
    "trial_deaths",
    "trial_limits",
    "status_gap_ms",
    "node_growth_mb",
    "lost",
)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    paths = {target_class(path).name: path for path in TARGETS}
    chosen = [paths[name] for name in options.targets or paths]
    if options.replay:
        if len(chosen) != 1:
            parser.error("--replay expects one name after --targets")
        return replay(chosen[0], options.replay)
    try:
        claim_folder(options.out, "fuzz", ("report.json", *paths))
    except OutputError as error:
        parser.error(str(error))
    shares = {path: target_class(path).share for path in chosen}
    results = []
    for path, share in shares.items():
        seconds = options.minutes * 60 * share / sum(shares.values())
        limit: dict[str, Any] = {"mutants": options.count} if options.count else {"seconds": seconds}
        results.append(run_target(path, options.out, options.seed, timed=True, **limit))
        print(line(results[-1]), flush=True)
    report = {"seed": options.seed, "machine": machine(), "versions": versions()}
    write_json(options.out / "report.json", {**report, "results": results})
    print(f"{options.out / 'report.json'}")
    return 1 if any(result["failures"] for result in results) else 0


def line(result: Result) -> str:
    """The result of a target as text, with its failures."""
    if result["skipped"]:
        return f"{result['target']:<14} skipped: {result['skipped']}"
    values = "  ".join(f"{name} {result[name]}" for name in _COLUMNS if name in result)
    failures = [f"\n  FAIL {one['reproducer']}: {one['error'].strip()}" for one in result["failures"]]
    return f"{result['target']:<14} {values}{''.join(failures)}"


def replay(path: str, file: Path) -> int:
    """Give one mutant to a target in this process."""
    with tempfile.TemporaryDirectory() as folder:
        target = target_class(path)(Path(folder))
        try:
            target.check(file.read_bytes())
            print("accepted")
        except target.refusals as error:
            print(f"refused: {error}")
        except Exception:
            traceback.print_exc()
            return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    names = [target_class(path).name for path in TARGETS]
    parser = argparse.ArgumentParser(
        prog="fuzz.py",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add: Any = parser.add_argument
    add(
        "--minutes",
        type=float,
        default=5.0,
        metavar="M",
        help="of all targets together (default: %(default)g)",
    )
    add("--count", type=int, metavar="N", help="mutants of each target, instead of --minutes")
    add("--seed", type=int, default=0, metavar="N", help="another seed gives other mutants (default: 0)")
    add(
        "--targets",
        nargs="+",
        choices=names,
        metavar="NAME",
        help=f"some of {', '.join(names)} (default: all)",
    )
    add("--out", type=Path, default=Path("out/fuzz"), metavar="DIR", help="default: %(default)s")
    add("--replay", type=Path, metavar="FILE", help="check this one mutant")
    return parser


if __name__ == "__main__":
    sys.exit(main())
