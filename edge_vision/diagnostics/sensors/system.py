"""All sensors of the machine in one reading, and the few that limit the load."""

from __future__ import annotations

import time
from pathlib import Path

from edge_vision.diagnostics.sensors.gpu import GpuMeter
from edge_vision.diagnostics.sensors.load import CpuMeter, read_memory
from edge_vision.diagnostics.sensors.power import PowerMeter
from edge_vision.diagnostics.sensors.thermal import ThrottleMeter, read_temperatures
from edge_vision.diagnostics.sensors.tree import Tree, Value


class SystemMeter:
    """Reads the machine whose /proc and /sys are below `root`. Sensors may appear and vanish meanwhile."""

    def __init__(self, root: str | Path = "/", nvml: str = "pynvml") -> None:
        self._tree = Tree(root)
        self._cpu = CpuMeter(self._tree)
        self._throttle = ThrottleMeter(self._tree)
        self._power = PowerMeter(self._tree)
        self._gpu = GpuMeter(self._tree, nvml)

    def read(self, mono_s: float | None = None) -> dict[str, Value]:
        """All figures; docs/status_keys.md lists the keys. mono_s: monotonic clock, default now."""
        now_s = time.monotonic() if mono_s is None else mono_s
        return {
            **self._cpu.read(),
            **read_memory(self._tree),
            **read_temperatures(self._tree),
            **self._throttle.read(),
            **self._power.read(now_s),
            **self._gpu.read(),
        }

    def close(self) -> None:
        self._gpu.close()


class HeatSensors:
    """Reads below `root`, as SystemMeter does, and only the requested ones."""

    def __init__(self, root: str = "/") -> None:
        self._tree = Tree(root)
        self._power, self._throttle = PowerMeter(self._tree), ThrottleMeter(self._tree)

    def read(self, power: bool, temperature: bool) -> dict[str, Value]:
        """throttling, and power_w and temperature_c if requested.

        power_w: of a CPU package, the mean since the last reading.
        """
        values = self._throttle.read()
        if power:
            values["power_w"] = self._power.read(time.monotonic())["power_w"]
        if temperature:
            values["temperature_c"] = read_temperatures(self._tree)["temperature_c.max"]
        return values
