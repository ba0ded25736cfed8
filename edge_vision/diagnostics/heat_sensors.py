"""The few sensors that limit the load: power, temperature and throttling."""

from __future__ import annotations

import time

from edge_vision.diagnostics.sensors import Tree, Value
from edge_vision.diagnostics.sensors.power import PowerMeter
from edge_vision.diagnostics.sensors.thermal import ThrottleMeter, read_temperatures


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
