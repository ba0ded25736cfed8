"""What every benchmark needs: the machine and the versions it ran on, hashes, medians, tables, JSON."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

REPO = Path(__file__).resolve().parents[1]
# Run as `python bench/NAME.py`, without an installation.
sys.path.insert(0, str(REPO))

PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "openvino", "psutil", "ros-jazzy-rclpy")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. target: in words; passed: None where there is no target or no figure."""

    name: str
    value: float | None
    unit: str
    target: str = ""
    passed: bool | None = None
    note: str = ""


def at_most(name: str, value: float | None, limit: float, unit: str, note: str = "") -> Row:
    """A row that passes where the value is at most the limit."""
    return Row(name, value, unit, f"<= {limit:g}", None if value is None else value <= limit, note)


def at_least(name: str, value: float | None, limit: float, unit: str, note: str = "") -> Row:
    """A row that passes where the value is at least the limit."""
    return Row(name, value, unit, f">= {limit:g}", None if value is None else value >= limit, note)


def table(rows: Sequence[Row]) -> str:
    """The rows for people, aligned."""
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
    """p50, p95 and n of some figures; {"n": 0} where there are none."""
    found = np.asarray(list(values), np.float64)
    if found.size == 0:
        return {"n": 0}
    p50, p95 = np.percentile(found, (50, 95))
    return {"p50": float(p50), "p95": float(p95), "n": int(found.size)}


def interleaved_ms(
    first: Callable[[], object], second: Callable[[], object], rounds: int
) -> tuple[list[float], list[float]]:
    """Time two things in turns, each going first every other time, so that noise meets both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    pair = (first, second)
    for i in range(rounds):
        for which in (0, 1) if i % 2 else (1, 0):
            started = time.perf_counter()
            pair[which]()
            times[which].append((time.perf_counter() - started) * 1e3)
    return times


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the ratios pair by pair: what slows both does not move it."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def machine() -> dict[str, Any]:
    """What the figures were taken on. load_1m_at_start above the number of cores: others were busy too."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "arch": platform.machine(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "ram_mb": _ram_mb(),
        "load_1m_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.lower().startswith(("model name", "model\t"))]
    return names[0] if names else platform.processor() or "unavailable"


def _ram_mb() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1_000_000
    except (ValueError, OSError):
        return None


def versions() -> dict[str, str]:
    """edge_vision, its commit where it is a checkout, and the packages that are installed."""
    from edge_vision import __version__

    found = {"edge_vision": __version__, "ros_distro": os.environ.get("ROS_DISTRO", "wheels")}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hashes(files: dict[str, Path]) -> dict[str, str]:
    """sha256 of each file that exists."""
    from edge_vision.bundles.store import sha256_of

    return {name: sha256_of(path) for name, path in files.items() if path.is_file()}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a result whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2, sort_keys=False) + "\n")
    part.replace(path)


def say(text: str) -> None:
    """One line of progress, cut to the terminal's width."""
    width = shutil.get_terminal_size((110, 24)).columns
    print(text if len(text) <= width or not sys.stdout.isatty() else text[: width - 1], flush=True)
