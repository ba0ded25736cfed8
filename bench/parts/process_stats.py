"""A process as /proc reports it, and the trend of a figure over time."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_TICKS_HZ = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Reading:
    """at_s: monotonic. cpu_s: user and system, all threads, in steps of 10 ms. rss_kb: VmRSS. load_1m: of the
    machine."""

    at_s: float
    cpu_s: float
    rss_kb: int
    threads: int
    fds: int
    load_1m: float


def read_process(pid: int) -> Reading:
    """Read from /proc only, without code of the package. Raises OSError if the process has ended."""
    folder = Path(f"/proc/{pid}")
    # The name may contain spaces and brackets; the later fields do not.
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    lines = (folder / "status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return Reading(
        time.monotonic(),
        (int(fields[11]) + int(fields[12])) / _TICKS_HZ,
        int(status["VmRSS"].split()[0]),
        int(status["Threads"]),
        len(os.listdir(folder / "fd")),
        round(os.getloadavg()[0], 2),
    )


def slope_per_min(at_s: Sequence[float], values: Sequence[float]) -> float | None:
    """The Theil-Sen slope: the median over all pairs, robust against single jumps. None for fewer than
    three points. Source: Sen, Estimates of the regression coefficient based on Kendall's tau, 1968."""
    if len(at_s) < 3:
        return None
    # A few hundred points suffice; the number of pairs is quadratic.
    step = max(1, len(at_s) // 600)
    x, y = np.asarray(at_s[::step], np.float64), np.asarray(values[::step], np.float64)
    first, second = np.triu_indices(len(x), 1)
    apart = x[second] - x[first]
    steep = (y[second] - y[first])[apart > 0] / apart[apart > 0]
    return float(np.median(steep)) * 60.0 if steep.size else None


def binned_medians(
    at_s: Sequence[float], values: Sequence[float], width_s: float
) -> tuple[list[float], list[float]]:
    """(middles, medians) of bins of time."""
    x, y = np.asarray(at_s, np.float64), np.asarray(values, np.float64)
    if x.size == 0:
        return [], []
    number = ((x - x[0]) // width_s).astype(int)
    bins = np.unique(number)
    return (
        [float(x[0] + (n + 0.5) * width_s) for n in bins],
        [float(np.median(y[number == n])) for n in bins],
    )
