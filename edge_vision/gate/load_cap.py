"""The budget of CPU time that the configured limits leave: of CPU, of power, of temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

MARGIN_C, MARGIN_SHARE = 3.0, 0.05
"""So far below its limit, a reading allows more load again."""
STEP = 0.9
"""Factor of the cap at each reading above a limit; its reciprocal below all of them."""
MIN_CAP_PERCENT = 0.5
FREE = 1.3
"""A cap of this many times the load has no effect any more."""


class Budget(NamedTuple):
    """percent: CPU time, of all cores. cause: the limit behind it, with its figures."""

    percent: float
    cause: str


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """What must not be exceeded; 0 = no limit. Each is a parameter of the gate node, described there."""

    cpu_budget_percent: float = 0.0
    max_power_w: float = 0.0
    max_temperature_c: float = 0.0

    @property
    def any(self) -> bool:
        """Whether there is a limit at all. Throttling counts only then."""
        return bool(self.cpu_budget_percent or self.max_power_w or self.max_temperature_c)


class HeatReadings(NamedTuple):
    """Of the machine's sensors; None = unavailable. throttling: "" or what is active."""

    power_w: float | None = None
    temperature_c: float | None = None
    throttling: str = ""


class LoadCap:
    """Lowers the load step by step while a sensor exceeds its limit, and raises it again afterwards.

    Power and temperature follow the load with delays of seconds to minutes, so one step is small, and one
    reading long after the other: the caller reads every few seconds.
    """

    def __init__(self) -> None:
        self._percent: float | None = None
        self._cause = ""

    def observe(self, limits: LoadLimits, readings: HeatReadings, cpu_percent: float) -> None:
        """Take one reading of the sensors. cpu_percent: the load, of all cores."""
        cause = _exceeded(limits, readings)
        if cause:
            self._cause = cause
            percent = min(self._percent or cpu_percent, cpu_percent) * STEP
            self._percent = max(percent, MIN_CAP_PERCENT)
        elif self._percent is not None and _clear(limits, readings):
            self._percent /= STEP
            if self._percent > FREE * cpu_percent or self._percent >= 100.0:
                self._percent = None

    def budget(self, limits: LoadLimits) -> Budget | None:
        """The smaller one of the CPU budget and the cap; None if nothing limits the load."""
        budget = limits.cpu_budget_percent
        if not limits.any:
            self._percent = None
        if self._percent is not None and not 0.0 < budget < self._percent:
            return Budget(self._percent, self._cause)
        return Budget(budget, f"cpu_budget_percent {budget:g}") if budget else None


def _exceeded(limits: LoadLimits, readings: HeatReadings) -> str:
    """The first limit that a sensor exceeds, with figures; "" if none does."""
    power_w, temperature_c = readings.power_w, readings.temperature_c
    if limits.max_temperature_c and temperature_c is not None and temperature_c > limits.max_temperature_c:
        return f"max_temperature_c {limits.max_temperature_c:g}, at {temperature_c:.0f} C"
    if limits.max_power_w and power_w is not None and power_w > limits.max_power_w:
        return f"max_power_w {limits.max_power_w:g}, at {power_w:.1f} W"
    return f"throttling: {readings.throttling}" if readings.throttling else ""


def _clear(limits: LoadLimits, readings: HeatReadings) -> bool:
    """Whether all readings are well below their limits. What is unavailable limits nothing."""
    hot = limits.max_temperature_c and (readings.temperature_c or 0.0) > limits.max_temperature_c - MARGIN_C
    drawn = limits.max_power_w and (readings.power_w or 0.0) > limits.max_power_w * (1.0 - MARGIN_SHARE)
    return not (hot or drawn or readings.throttling)
