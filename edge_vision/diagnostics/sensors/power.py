"""Power and energy: Intel/AMD RAPL, rails on hwmon (a Jetson's INA3221, others), the battery.

Sources: Documentation/power/powercap/powercap.rst, Documentation/hwmon/sysfs-interface.rst and
Documentation/ABI/testing/sysfs-class-power of Linux.
"""

from __future__ import annotations

from edge_vision.diagnostics.sensors.tree import Tree, Unavailable, Value

# Rails that feed the whole board, on the Jetsons' labels.
_INPUT_RAILS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0", "VDD_TOTAL")
_RAPL = "sys/class/powercap/intel-rapl:[0-9]*"


class PowerMeter:
    """Current power, and energy since the first reading.

    power_w is that of the most complete source: a board's input rail, the battery while it discharges, or
    the CPU packages (RAPL), as power_source states.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._energy_uj: dict[str, float] = {}
        self._last_s: float | None = None
        self._energy_j = 0.0
        self._source = ""

    def read(self, mono_s: float) -> dict[str, Value]:
        """power_w, power_source, energy_j, and power_w.NAME of each source. mono_s: monotonic clock."""
        elapsed_s = None if self._last_s is None else mono_s - self._last_s
        self._last_s = mono_s
        packages, rails, battery = self._rapl(elapsed_s), self._rails(), self._battery()
        power_w, source = _most_complete(packages, rails, battery)
        if isinstance(power_w, float):
            if source != self._source:  # Energy of the board and of the CPU alone must not be added.
                self._source, self._energy_j = source, 0.0
            elif elapsed_s and elapsed_s > 0:
                self._energy_j += power_w * elapsed_s
        energy_j: Value = self._energy_j if isinstance(power_w, float) else power_w
        parts = {f"power_w.{name}": value for name, value in {**packages, **rails, **battery}.items()}
        return {"power_w": power_w, "power_source": source or power_w, "energy_j": energy_j, **parts}

    def _rapl(self, elapsed_s: float | None) -> dict[str, Value]:
        """Mean power of each CPU package since the last reading."""
        values: dict[str, Value] = {}
        for path in self._tree.find(_RAPL):
            if path.count(":") > 1:  # A part of a package, which includes it.
                continue
            name, now_uj = self._tree.text(f"{path}/name"), self._tree.number(f"{path}/energy_uj")
            if isinstance(name, Unavailable):
                name = path.rpartition("/")[2]
            values[name] = self._mean_w(path, now_uj, elapsed_s)
        return values

    def _mean_w(self, path: str, now_uj: float | Unavailable, elapsed_s: float | None) -> Value:
        last_uj = self._energy_uj.pop(path, None)
        if isinstance(now_uj, Unavailable):
            return now_uj
        self._energy_uj[path] = now_uj
        if last_uj is None or not elapsed_s or elapsed_s <= 0:
            return Unavailable("needs a second reading")
        spent_uj = now_uj - last_uj
        if spent_uj < 0:  # The counter wraps at this range, after minutes to hours.
            range_uj = self._tree.number(f"{path}/max_energy_range_uj")
            if isinstance(range_uj, Unavailable) or spent_uj + range_uj < 0:
                return Unavailable("the counter jumped back")
            spent_uj += range_uj
        return spent_uj / 1e6 / elapsed_s

    def _rails(self) -> dict[str, Value]:
        """Power of each rail: in uW if the chip reports it, otherwise voltage (mV) times current (mA)."""
        values: dict[str, Value] = {}
        for path in self._tree.find(
            "sys/class/hwmon/hwmon*/power*_input", "sys/class/hwmon/hwmon*/power*_average"
        ):
            stem = path.rpartition("_")[0]
            micro_w = self._tree.number(path)
            values[self._rail(stem)] = micro_w if isinstance(micro_w, Unavailable) else micro_w / 1e6
        for path in self._tree.find("sys/class/hwmon/hwmon*/curr*_input"):
            stem = path.replace("/curr", "/in").rpartition("_")[0]
            name = self._rail(stem)
            milli_v, milli_a = self._tree.number(f"{stem}_input"), self._tree.number(path)
            if name in values or isinstance(milli_v, Unavailable):
                continue  # Without a voltage it is the current of a charger, not of a rail.
            values[name] = milli_a if isinstance(milli_a, Unavailable) else milli_v * milli_a / 1e6
        return values

    def _rail(self, stem: str) -> str:
        label = self._tree.text(f"{stem}_label")
        if not isinstance(label, Unavailable) and label:
            return label.replace(" ", "_")
        folder, _, channel = stem.rpartition("/")
        chip = self._tree.text(f"{folder}/name")
        return f"{folder.rpartition('/')[2] if isinstance(chip, Unavailable) else chip}.{channel}"

    def _battery(self) -> dict[str, Value]:
        """Power drawn from the battery; unavailable while it charges."""
        values: dict[str, Value] = {}
        for path in self._tree.find("sys/class/power_supply/*"):
            if self._tree.text(f"{path}/type") != "Battery":
                continue
            name, status = f"battery.{path.rpartition('/')[2]}", self._tree.text(f"{path}/status")
            if status != "Discharging":
                values[name] = Unavailable(f"the battery is not discharging ({str(status).lower()})")
                continue
            micro_w = self._tree.number(f"{path}/power_now")
            if isinstance(micro_w, Unavailable):
                micro_v = self._tree.number(f"{path}/voltage_now")
                micro_a = self._tree.number(f"{path}/current_now")
                if isinstance(micro_v, Unavailable) or isinstance(micro_a, Unavailable):
                    values[name] = micro_w
                    continue
                micro_w = micro_v * micro_a / 1e6
            values[name] = abs(micro_w) / 1e6
        return values


def _most_complete(
    packages: dict[str, Value], rails: dict[str, Value], battery: dict[str, Value]
) -> tuple[Value, str]:
    """Power in W of the source that covers most of the machine, and its name."""
    for name in _INPUT_RAILS:
        if isinstance(rails.get(name), float):
            return rails[name], name
    for parts, name in ((battery, "battery"), (packages, "rapl")):
        known = [
            value for key, value in parts.items() if isinstance(value, float) and not key.startswith("psys")
        ]
        if known:
            return float(sum(known)), name
    missing = [
        value
        for parts in (packages, battery, rails)
        for value in parts.values()
        if isinstance(value, Unavailable)
    ]
    if missing:
        return missing[0], ""
    if rails:
        return Unavailable("no known rail feeds the whole board; see power_w.NAME"), ""
    return Unavailable("no RAPL, no power rail on hwmon, no battery"), ""
