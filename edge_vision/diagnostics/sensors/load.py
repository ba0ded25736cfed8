"""CPU load and frequency, per core; memory and swap.

Sources: proc(5), Documentation/admin-guide/pm/cpufreq.rst of Linux.
"""

from __future__ import annotations

from edge_vision.diagnostics.sensors.tree import Tree, Unavailable, Value

_FREQUENCY = "sys/devices/system/cpu/{}/cpufreq/scaling_cur_freq"


class CpuMeter:
    """Load since the last reading, from the tick counters of /proc/stat."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._last: dict[str, tuple[float, float]] = {}

    def read(self) -> dict[str, Value]:
        """cpu.percent (0..100 of all cores), cpu.N.percent, cpu.N.frequency_mhz."""
        text = self._tree.text("proc/stat")
        if isinstance(text, Unavailable):
            return {"cpu.percent": text}
        now = _ticks(text)
        values: dict[str, Value] = {"cpu.percent": self._percent("cpu", now)}
        for core in [name for name in now if name != "cpu"]:
            values[f"cpu.{core[3:]}.percent"] = self._percent(core, now)
            khz = self._tree.number(_FREQUENCY.format(core))
            values[f"cpu.{core[3:]}.frequency_mhz"] = khz if isinstance(khz, Unavailable) else khz / 1e3
        self._last = now
        return values

    def _percent(self, name: str, now: dict[str, tuple[float, float]]) -> Value:
        if name not in now:
            return Unavailable("/proc/stat has no such line")
        if name not in self._last:
            return Unavailable("needs a second reading")
        busy, total = (a - b for a, b in zip(now[name], self._last[name], strict=True))
        # Counters may restart after a core was offline; the kernel's iowait may run backwards.
        if total <= 0 or busy < 0:
            return Unavailable("the counters did not move" if total == 0 else "the counters jumped back")
        return min(100.0, 100.0 * busy / total)


def _ticks(text: str) -> dict[str, tuple[float, float]]:
    """{"cpu" or "cpuN": (busy, total)} in ticks. Truncated and malformed lines are left out."""
    ticks: dict[str, tuple[float, float]] = {}
    for line in text.splitlines():
        name, *fields = line.split()[:9] or [""]
        if not name.startswith("cpu") or len(fields) < 4:
            continue
        try:
            user, nice, system, idle, *rest = (float(field) for field in fields)
        except ValueError:
            continue
        waiting = rest[0] if rest else 0.0
        busy = user + nice + system + sum(rest[1:])
        ticks[name] = (busy, busy + idle + waiting)
    return ticks


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
