"""The processor cores that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_TOPOLOGY = "/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"


def usable_cores() -> int:
    """Physical cores that this process may use, at least 1, by its affinity and its container's quota.

    Two threads of one physical core share its arithmetic units: inference gains nothing from both.
    """
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = len({_siblings(cpu) for cpu in cpus})
    quota = min((q for q in map(_quota, _cgroup_folders()) if q is not None), default=math.inf)
    return max(1, int(min(cores, math.ceil(quota)) if math.isfinite(quota) else cores))


def _siblings(cpu: int) -> str:
    """The hardware threads of a CPU's core, as text; the CPU alone if the kernel does not report them."""
    try:
        return Path(_TOPOLOGY.format(cpu=cpu)).read_text().strip()
    except OSError:
        return str(cpu)


def _cgroup_folders() -> list[Path]:
    """Folders of this process's control group and its parents, v2 and v1."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders = [_CGROUP, _CGROUP / "cpu"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        root = _CGROUP if not controllers else _CGROUP / controllers
        own = root / path.lstrip("/")
        folders += [own, *(parent for parent in own.parents if parent.is_relative_to(root))]
    return folders


def _quota(folder: Path) -> float | None:
    """The CPU time per time of a control group, in cores; None for no limit."""
    try:
        if (folder / "cpu.max").exists():
            limit, period = (folder / "cpu.max").read_text().split()
        else:
            limit = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return int(limit) / int(period) if limit != "max" and int(limit) > 0 else None
    except (OSError, ValueError):
        return None
