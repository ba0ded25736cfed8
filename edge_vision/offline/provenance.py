"""Provenance of a result: the machine, the versions, the hashes."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from edge_vision import __version__
from edge_vision.backends import runtime_versions
from edge_vision.backends.host import usable_cpus
from edge_vision.backends.runtimes.engine_cache import write_file
from edge_vision.bundles.store import sha256_of

PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "torch",
    "psutil",
    "rclpy",
)


def machine() -> dict[str, Any]:
    """System, processor, memory and load. load_1m above `cores` means that other processes were running."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "arch": platform.machine(),
        "cpu": cpu_model(),
        "cores": len(usable_cpus()),
        "ram_mb": round(psutil.virtual_memory().total / 1e6),
        "load_1m": round(os.getloadavg()[0], 2),
    }


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("model name")]
    return names[0] if names else platform.processor() or "unavailable"


def versions() -> dict[str, str]:
    """The versions of edge_vision, Python, ROS and the installed packages."""
    found = {
        "edge_vision": __version__,
        "python": platform.python_version(),
        "ros": os.environ.get("ROS_DISTRO", "wheels"),
    }
    for name in PACKAGES:
        for spelling in (name, f"ros-jazzy-{name}"):
            try:
                found[name] = metadata.version(spelling)
            except metadata.PackageNotFoundError:
                continue
    return {**found, **runtime_versions()}


def hash_of(path: Path | str) -> str:
    """sha256 of a file, "unavailable" for anything else."""
    return sha256_of(Path(path)) if Path(path).is_file() else "unavailable"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a result atomically. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, (json.dumps(content, indent=2) + "\n").encode())
