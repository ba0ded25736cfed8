"""This machine: the cores that the process may use, and what distinguishes it from other machines.

A result measured on one machine is not valid on another.
"""

from __future__ import annotations

import math
import os
import platform
import re
import sys
from collections.abc import Iterable
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_TOPOLOGY = "/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"


def usable_cores() -> int:
    """Physical cores that this process may use, at least 1, by its affinity and its container's quota.

    Two threads of one physical core share its arithmetic units: inference gains nothing from both.
    """
    cores = len({_siblings(cpu) for cpu in usable_cpus()})
    quota = min((q for q in map(_quota, _cgroup_folders()) if q is not None), default=math.inf)
    return max(1, int(min(cores, math.ceil(quota)) if math.isfinite(quota) else cores))


def usable_cpus() -> set[int]:
    """The hardware threads that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


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


# Libraries that several runtimes load.
_SHARED_LIBRARIES = ("nvidia", "cuda")


def installed_packages(prefixes: Iterable[str]) -> dict[str, str]:
    """Installed package -> version, for names that begin with a prefix, and GPU libraries.

    Reads the names of metadata folders only: importlib.metadata reads every file, which takes 70 ms.
    """
    wanted = tuple(map(_normalized, (*prefixes, *_SHARED_LIBRARIES)))
    found: dict[str, str] = {}
    for folder in filter(None, sys.path):
        try:
            entries = os.listdir(folder)
        except OSError:
            continue
        for entry in entries:
            stem, dot, kind = entry.rpartition(".")
            name, _, version = stem.partition("-")
            if dot and kind in ("dist-info", "egg-info") and _normalized(name).startswith(wanted):
                # The first folder on the path is the one that is imported.
                found.setdefault(_normalized(name), version)
    return dict(sorted(found.items()))


def processor() -> str:
    """The lines of /proc/cpuinfo that name the processor and its instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor()
    keys = ("model name", "flags", "features", "cpu part", "cpu implementer")
    return "\n".join(sorted({line for line in lines if line.lower().startswith(keys)}))


def driver() -> str:
    """The NVIDIA driver's or a Jetson's release; "" if there is neither."""
    versions = ""
    for file in ("/proc/driver/nvidia/version", "/etc/nv_tegra_release"):
        try:
            versions += Path(file).read_text("utf-8", "replace")
        except OSError:
            continue
    return versions


def _normalized(name: str) -> str:
    """A package name as PyPI compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
