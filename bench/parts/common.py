"""Shared by all commands: medians, ratios of pairs, and a table with targets."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

REPO = Path(__file__).resolve().parents[2]
# Run as `python bench/NAME.py`, without an installation.
sys.path.insert(0, str(REPO))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. target: as text; passed: None without a target or a value."""

    name: str
    value: float | None
    unit: str
    target: str = ""
    passed: bool | None = None
    note: str = ""


def at_most(name: str, value: float | None, limit: float, unit: str, note: str = "") -> Row:
    """A row that passes if the value is at most the limit."""
    return Row(name, value, unit, f"<= {limit:g}", None if value is None else value <= limit, note)


def at_least(name: str, value: float | None, limit: float, unit: str, note: str = "") -> Row:
    """A row that passes if the value is at least the limit."""
    return Row(name, value, unit, f">= {limit:g}", None if value is None else value >= limit, note)


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""
    cells = [("figure", "measured", "unit", "target", "", "note")]
    for row in rows:
        value = "not measured" if row.value is None else f"{row.value:.4g}"
        cells.append((row.name, value, row.unit, row.target, _verdict(row), row.note))
    widths = [max(len(line[i]) for line in cells) for i in range(5)]
    return "\n".join(
        "  ".join([*(text.ljust(width) for text, width in zip(line, widths, strict=False)), line[5]]).rstrip()
        for line in cells
    )


def _verdict(row: Row) -> str:
    if not row.target:
        return ""
    return {True: "pass", False: "FAIL", None: "?"}[row.passed]


def spread(values: Iterable[float]) -> dict[str, float | int]:
    """p50, p95 and n of the values; {"n": 0} if there are none."""
    found = np.asarray(list(values), np.float64)
    if found.size == 0:
        return {"n": 0}
    p50, p95 = np.percentile(found, (50, 95))
    return {"p50": float(p50), "p95": float(p95), "n": int(found.size)}


def interleaved_ms(
    first: Callable[[], object], second: Callable[[], object], rounds: int
) -> tuple[list[float], list[float]]:
    """Time two calls in turns, alternating which is first, so that noise affects both equally."""
    times: tuple[list[float], list[float]] = ([], [])
    pair = (first, second)
    for i in range(rounds):
        for which in (0, 1) if i % 2 else (1, 0):
            started = time.perf_counter()
            pair[which]()
            times[which].append((time.perf_counter() - started) * 1e3)
    return times


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median ratio over the pairs: a load that slows both does not change it."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def script_environment() -> dict[str, str]:
    """The environment for a child process, which loads ROS itself."""
    return {k: v for k, v in os.environ.items() if k != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}


def part_command(script: str, *arguments: object) -> list[str]:
    """The command that runs a script of bench/parts/, given relative to that folder."""
    return [sys.executable, str(REPO / "bench" / "parts" / script), *map(str, arguments)]


def measured(script: str, *arguments: object) -> dict[str, Any]:
    """The result of a script of bench/parts/ in a process of its own. Its log is shown if it fails."""
    command = part_command(script, *arguments)
    done = subprocess.run(command, env=script_environment(), capture_output=True, text=True, cwd=REPO)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        print(done.stdout + done.stderr, file=sys.stderr)
        raise SystemExit(f"{script} {arguments[0]} failed with status {done.returncode}, see above")
    result: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    return result
