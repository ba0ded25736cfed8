"""Sensor values of the machine, the limits that they exceed, and the energy per inferred frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

from edge_vision.diagnostics.sensors import SystemMeter, Unavailable, Value, number

# Readings in a mean, one per second.
WINDOW = 10
RELEASE = 0.9
"""A limit that was exceeded is met again below this share of it."""


class _Params(Protocol):
    def __getitem__(self, name: str) -> Any: ...


class SystemReport:
    """Reads the machine's sensors, and compares them with the parameters of the diagnostics node."""

    def __init__(self, root: str = "/") -> None:
        self._meter = SystemMeter(root)
        self._cpu: deque[float] = deque(maxlen=WINDOW)
        self._energy: deque[tuple[float, int, str]] = deque(maxlen=WINDOW + 1)
        self._exceeded: set[str] = set()

    def read(self, params: _Params, inferred: int | None) -> tuple[dict[str, str], dict[str, Value]]:
        """The exceeded limits, each with a sentence, and the values.

        inferred: frames inferred so far, None if no detector reports.
        """
        values = self._meter.read()
        values["energy_per_inferred_frame_j"] = self._frame_energy(values, inferred)
        cpu = number(values["cpu.percent"])
        if cpu is not None:
            self._cpu.append(cpu)
        exceeded, throttling = dict(self._over(values, params)), values["throttling"]
        self._exceeded = set(exceeded)
        if isinstance(throttling, str) and throttling != "no":
            text = f"the machine throttles its clock: {throttling}. Cool it, or reduce the load"
            exceeded["throttling"] = text
        return exceeded, values

    def reset(self) -> None:
        self._cpu.clear()
        self._energy.clear()

    def close(self) -> None:
        self._meter.close()

    def _over(self, values: dict[str, Value], params: _Params) -> Iterator[tuple[str, str]]:
        full = len(self._cpu) == WINDOW
        readings = (
            ("max_cpu_percent", sum(self._cpu) / WINDOW if full else None, "CPU {:.0f} %, mean of 10 s,"),
            ("max_memory_percent", number(values["memory.percent"]), "memory {:.0f} %"),
            ("max_temperature_c", number(values["temperature_c.max"]), "temperature {:.0f} C"),
            ("max_power_w", number(values["power_w"]) if params["max_power_w"] else None, "power {:.1f} W"),
        )
        for name, value, template in readings:
            limit = params[name]
            if value is not None and value > limit * (RELEASE if name in self._exceeded else 1.0):
                where = "above" if value > limit else "still within 10 % of"
                yield name, f"{template.format(value)} is {where} {name} {limit:.10g}"

    def _frame_energy(self, values: dict[str, Value], inferred: int | None) -> Value:
        """Energy of the power source divided by the inferred frames, over the last 10 s."""
        energy_j, source = values["energy_j"], values["power_source"]
        if not isinstance(energy_j, float):
            return energy_j if isinstance(energy_j, Unavailable) else Unavailable("no energy sensor")
        if inferred is None:
            return Unavailable("no detector reports")
        past = self._energy
        # After a reset, or with another source, old values do not apply.
        if past and (inferred < past[-1][1] or str(source) != past[-1][2]):
            past.clear()
        past.append((energy_j, inferred, str(source)))
        frames = inferred - past[0][1]
        return (energy_j - past[0][0]) / frames if frames else Unavailable("no frame was inferred")
