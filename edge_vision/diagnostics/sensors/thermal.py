"""Temperatures and throttling. Sources: Documentation/driver-api/thermal/sysfs-api.rst and
Documentation/hwmon/sysfs-interface.rst of Linux; for the Raspberry Pi the firmware's get_throttled.
"""

from __future__ import annotations

from edge_vision.diagnostics.sensors.tree import Tree, Unavailable, Value

# Outside this range a sensor is off or broken: an unused zone of a Jetson reports -256.
PLAUSIBLE_C = (-50.0, 150.0)
_PI = "sys/devices/platform/soc/soc:firmware/get_throttled"
_PI_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
_COUNTERS = "sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count"


def read_temperatures(tree: Tree) -> dict[str, Value]:
    """temperature_c.max, and temperature_c.NAME of each thermal zone, or of each hwmon sensor without any."""
    values: dict[str, Value] = {}
    for path in tree.find("sys/class/thermal/thermal_zone*"):
        _add(values, tree.text(f"{path}/type"), tree.number(f"{path}/temp"))
    if not values:
        for path in tree.find("sys/class/hwmon/hwmon*/temp*_input"):
            label = tree.text(path.replace("_input", "_label"))
            if isinstance(label, Unavailable):
                label = tree.text(f"{path.rpartition('/')[0]}/name")
            _add(values, label, tree.number(path))
    known = [value for value in values.values() if isinstance(value, float)]
    reason = "no sensor reports a temperature" if values else "no thermal zone and no hwmon sensor"
    return {"temperature_c.max": max(known) if known else Unavailable(reason), **values}


def _add(values: dict[str, Value], name: str | Unavailable, milli_c: float | Unavailable) -> None:
    """Add under the sensor's name; further sensors of that name get a number."""
    base = key = "temperature_c." + ("sensor" if isinstance(name, Unavailable) else name.replace(" ", "_"))
    n = 1
    while key in values:
        n += 1
        key = f"{base}.{n}"
    if isinstance(milli_c, Unavailable):
        values[key] = milli_c
    elif not PLAUSIBLE_C[0] <= milli_c / 1e3 <= PLAUSIBLE_C[1]:
        values[key] = Unavailable(f"implausible: {milli_c / 1e3:.0f} C")
    else:
        values[key] = milli_c / 1e3


class ThrottleMeter:
    """Whether the machine was throttled since the last reading."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._last: dict[str, float] = {}

    def read(self) -> dict[str, Value]:
        """throttling: "no", or what is active."""
        sources = [self._counters(), self._cooling(), self._pi()]
        known = [text for text in sources if text is not None]
        if not known:
            return {"throttling": Unavailable("no throttle counter, no cooling device of the CPU or GPU")}
        return {"throttling": "; ".join(text for text in known if text) or "no"}

    def _counters(self) -> str | None:
        """Cores whose event counter rose (Intel), "" if none did; None without counters."""
        now = {path: self._tree.number(path) for path in self._tree.find(_COUNTERS)}
        counts = {path: count for path, count in now.items() if not isinstance(count, Unavailable)}
        rose = [path for path, count in counts.items() if count > self._last.get(path, count)]
        self._last = counts
        if not counts:
            return None
        cores = sorted({int(path.split("/")[4][3:]) for path in rose})
        return f"thermal throttling of core {', '.join(map(str, cores))}" if cores else ""

    def _cooling(self) -> str | None:
        """Active steps of passive cooling of CPU and GPU (Jetson and other ARM boards). Fans do not count."""
        found, active = False, []
        for path in self._tree.find("sys/class/thermal/cooling_device*"):
            kind, state = self._tree.text(f"{path}/type"), self._tree.number(f"{path}/cur_state")
            # "Processor" of x86 idles for many reasons; thermal events are in its counters.
            if isinstance(kind, Unavailable) or isinstance(state, Unavailable) or not _is_passive(kind):
                continue
            found = True
            active += [f"{kind} at step {state:.0f}"] if state > 0 else []
        return ", ".join(active) if found else None

    def _pi(self) -> str | None:
        text = self._tree.text(_PI)
        if isinstance(text, Unavailable):
            return None
        try:
            bits = int(text, 16)
        except ValueError:
            return None
        return ", ".join(name for bit, name in _PI_BITS.items() if bits >> bit & 1)


def _is_passive(kind: str) -> bool:
    return any(name in kind.lower() for name in ("cpufreq", "devfreq", "throttle", "cpu-alert", "gpu-alert"))
