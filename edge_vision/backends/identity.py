"""What distinguishes this device from others: a result measured on one is not valid on another."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable
from pathlib import Path

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
