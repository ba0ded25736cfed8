"""Checks of the machine: processor, memory, sensors."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from pathlib import Path

from edge_vision.backends.host import usable_cores
from edge_vision.cli.doctor.check import INSTALLATION, OK, UNKNOWN, WARN, Check
from edge_vision.diagnostics.sensors import SystemMeter, Tree, Unavailable, Value, number
from edge_vision.diagnostics.sensors.load import read_memory

# Flag in /proc/cpuinfo -> common name. Sources: arch/x86/include/asm/cpufeatures.h and
# Documentation/arch/arm64/elf_hwcaps.rst of Linux.
X86 = {
    "sse4_2": "SSE4.2",
    "avx": "AVX",
    "avx2": "AVX2",
    "fma": "FMA",
    "avx512f": "AVX-512",
    "avx_vnni": "VNNI",
    "avx512_vnni": "VNNI",
    "avx512_bf16": "BF16",
    "amx_tile": "AMX",
}
ARM = {
    "neon": "NEON",
    "asimd": "NEON",
    "asimdhp": "FP16",
    "asimddp": "dotprod",
    "i8mm": "I8MM",
    "bf16": "BF16",
    "sve": "SVE",
}
# The whole pipeline in one process takes about 240 MB, and more while it starts.
LEAST_MEMORY_MB = 400.0
SECOND_READING_S = 0.2


def checks(root: str | Path = "/", architecture: str = "") -> Iterator[Check]:
    """Checks of the machine whose /proc and /sys lie below root."""
    tree = Tree(root)
    yield _cpu(tree, architecture or platform.machine())
    yield _memory(tree)
    yield from _sensors(root)


def _cpu(tree: Tree, architecture: str) -> Check:
    info = tree.text("proc/cpuinfo")
    if isinstance(info, Unavailable):
        return Check(INSTALLATION, "cpu", UNKNOWN, str(info))
    fields = dict(line.partition(":")[::2] for line in info.splitlines() if ":" in line)
    info_by_key = {key.strip().lower(): value.strip() for key, value in fields.items()}
    flags = (info_by_key.get("flags") or info_by_key.get("features") or "").split()
    known = ARM if architecture.startswith(("arm", "aarch64")) else X86
    have = list(dict.fromkeys(name for flag, name in known.items() if flag in flags))
    physical, logical, usable = *_cores(tree), usable_cores()
    name = info_by_key.get("model name") or info_by_key.get("model") or architecture
    values = {
        "name": name,
        "architecture": architecture,
        "cores_physical": physical,
        "cores_logical": logical,
        "cores_usable": usable,
        "instructions": have,
    }
    text = (
        f"{name}, {physical} cores, {logical} threads, {usable} cores usable; {', '.join(have) or 'none of '}"
    )
    text += "" if have else ", ".join(dict.fromkeys(known.values()))
    if known is X86 and "avx2" not in flags:
        return Check(INSTALLATION, "cpu", WARN, f"{text}. Without AVX2 inference is slow", values)
    if known is ARM and "dotprod" not in have:
        text += ". Without dotprod int8 models gain little"
    return Check(INSTALLATION, "cpu", OK, text, values)


def _cores(tree: Tree) -> tuple[int, int]:
    """Physical cores and hardware threads that are online."""
    paths = tree.find("sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list")
    siblings = [tree.text(path) for path in paths]
    logical = len(siblings) or 1
    return len({str(one) for one in siblings}) or 1, logical


def _memory(tree: Tree) -> Check:
    values = read_memory(tree)
    used_mb, total_mb = number(values["memory.used_mb"]), number(values["memory.total_mb"])
    if used_mb is None or total_mb is None:
        return Check(INSTALLATION, "memory", UNKNOWN, str(values["memory.used_mb"]))
    free_mb, limit_mb = total_mb - used_mb, _container_mb(tree)
    figures = {"free_mb": round(free_mb), "total_mb": round(total_mb), "container_mb": limit_mb}
    text = f"{free_mb:.0f} of {total_mb:.0f} MB free"
    text += f", {limit_mb} MB for this container" if limit_mb and limit_mb < total_mb else ""
    if min(free_mb, limit_mb or free_mb) < LEAST_MEMORY_MB:
        text += f": the pipeline needs {LEAST_MEMORY_MB:.0f} MB to start and 240 MB to run"
        return Check(INSTALLATION, "memory", WARN, text, figures)
    return Check(INSTALLATION, "memory", OK, text, figures)


def _container_mb(tree: Tree) -> int | None:
    """The memory limit of this process's control group, None if there is none."""
    for path in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = tree.number(path)
        if isinstance(limit, float) and limit < 1 << 60:  # v1 has a huge number for "no limit".
            return round(limit / 1e6)
    return None


def _sensors(root: str | Path) -> Iterator[Check]:
    meter = SystemMeter(root)
    try:
        meter.read()
        time.sleep(SECOND_READING_S)  # Loads and power are differences.
        values = meter.read()
    finally:
        meter.close()
    yield _sensor("temperature", "temperature_c", " C", values, "temperature_c.max")
    yield _sensor("power", "power_w", " W", values, "power_w")
    yield _sensor("gpu", "gpu", "", values, "gpu")
    throttling = values["throttling"]
    level = WARN if isinstance(throttling, str) and throttling != "no" else OK
    text = (
        f"the machine is throttled: {throttling}. Improve its cooling or reduce the load"
        if level == WARN
        else str(throttling)
    )
    yield Check(INSTALLATION, "throttling", level, text, {"throttling": str(throttling)})


def _sensor(name: str, prefix: str, unit: str, values: dict[str, Value], main: str) -> Check:
    """One kind of sensor: its figures, or why there are none. All sensors are optional."""
    parts = {key: value for key, value in values.items() if key.split(".")[0] == prefix}
    figures = {key: value if number(value) is not None else str(value) for key, value in parts.items()}
    readable = [
        f"{key.removeprefix(prefix).lstrip('.') or name} {value:.4g}{unit}"
        for key, value in parts.items()
        if isinstance(value, (int, float)) and key != main
    ]
    text = ", ".join(readable) or str(parts.get(main, "unavailable"))
    return Check(INSTALLATION, f"sensor {name}", OK, text, figures)
