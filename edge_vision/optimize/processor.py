"""The name and the flags of this processor."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu_flags() -> frozenset[str]:
    """The flags of this processor in lower case; empty if the kernel does not report them."""
    values = [value for name, value in _cpuinfo() if name in ("flags", "features")]
    return frozenset(" ".join(values[:1]).lower().split())


def cpu_name() -> str:
    """The model name of the processor, or its architecture."""
    names = [value for name, value in _cpuinfo() if name == "model name"]
    return names[0] if names else platform.processor() or platform.machine()


def _cpuinfo() -> list[tuple[str, str]]:
    """The fields of /proc/cpuinfo with names in lower case; empty if it cannot be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    fields = (line.partition(":") for line in lines)
    return [(name.strip().lower(), value.strip()) for name, _, value in fields]
