"""Memory and swap. Source: /proc/meminfo, proc(5)."""

from __future__ import annotations

from edge_vision.diagnostics.sensors.tree import Tree, Unavailable, Value


def read_memory(tree: Tree) -> dict[str, Value]:
    """memory.used_mb, memory.total_mb, memory.percent; the same of swap. 1 MB = 1e6 bytes."""
    text = tree.text("proc/meminfo")
    kib = {} if isinstance(text, Unavailable) else _kib(text)
    reason = text if isinstance(text, Unavailable) else Unavailable("/proc/meminfo has no such line")
    swap = _share(kib, "SwapTotal", "SwapFree", reason)
    if kib.get("SwapTotal") == 0:
        swap = (Unavailable("no swap"), Unavailable("no swap"), Unavailable("no swap"))
    memory = _share(kib, "MemTotal", "MemAvailable", reason)
    names = ("used_mb", "total_mb", "percent")
    return {
        **{f"memory.{name}": value for name, value in zip(names, memory, strict=True)},
        **{f"swap.{name}": value for name, value in zip(names, swap, strict=True)},
    }


def _share(kib: dict[str, float], total: str, free: str, reason: Unavailable) -> tuple[Value, Value, Value]:
    if not kib.get(total) or free not in kib:
        return reason, reason, reason
    used_kib = kib[total] - kib[free]
    return used_kib * 1.024e-3, kib[total] * 1.024e-3, 100.0 * used_kib / kib[total]


def _kib(text: str) -> dict[str, float]:
    kib = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        first = value.split()[:1]
        if first and first[0].isdigit():
            kib[name] = float(first[0])
    return kib
