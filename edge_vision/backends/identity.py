"""What tells this device from others: results that hold on one need not hold on another."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

_RUNTIMES = ("onnx", "openvino", "tensorrt", "litert", "nvidia", "cuda", "qnn")


def runtime_packages() -> list[str]:
    """The installed packages that hold runtimes, with their versions, as their metadata folders are named.

    importlib.metadata reads every package's metadata for this, which takes 70 ms.
    """
    found: set[str] = set()
    for folder in filter(None, sys.path):
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        found.update(
            name.lower().rpartition(".")[0] for name in names if name.endswith((".dist-info", ".egg-info"))
        )
    return sorted(name for name in found if any(word in name for word in _RUNTIMES))


def processor() -> str:
    """The lines of /proc/cpuinfo that name a processor and what it can."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor()
    words = ("model name", "flags", "features", "cpu part", "cpu implementer")
    return "\n".join(sorted({line for line in lines if line.lower().startswith(words)}))


def driver() -> str:
    """NVIDIA's driver, a Jetson's release; "" where there is neither."""
    versions = ""
    for file in ("/proc/driver/nvidia/version", "/etc/nv_tegra_release"):
        try:
            versions += Path(file).read_text("utf-8", "replace")
        except OSError:
            continue
    return versions
