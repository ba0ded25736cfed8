"""GPU load and memory: NVML for NVIDIA's cards, sysfs for a Jetson's GPU and for amdgpu."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

from edge_vision.diagnostics.sensors.tree import Tree, Unavailable, Value

# Per mille, from the driver of the Jetsons' GPU (nvgpu).
_JETSON = (
    "sys/devices/gpu.0/load",
    "sys/devices/platform/gpu.0/load",
    "sys/devices/platform/*.gpu/load",
    "sys/devices/platform/*/*.gpu/load",
    "sys/devices/platform/*.g[av]*b/load",
)
_AMD = "sys/class/drm/card[0-9]*/device/gpu_busy_percent"


class GpuMeter:
    """Every GPU of the machine as gpu.N. nvml: the module's name, imported when first needed."""

    def __init__(self, tree: Tree, nvml: str = "pynvml") -> None:
        self._tree = tree
        self._name = nvml
        self._nvml: Any = None
        self._why = ""

    def read(self) -> dict[str, Value]:
        """gpu.N.percent, gpu.N.memory_used_mb, .memory_total_mb, .temperature_c, .power_w; what is not
        there is missing with the reason. `gpu` alone where no GPU can be read."""
        values = self._sysfs()
        values.update(self._cards(len({key.split(".")[1] for key in values})))
        return values or {"gpu": Unavailable(self._why or "no GPU that can be read")}

    def close(self) -> None:
        """Let go of NVML."""
        nvml, self._nvml, self._why = self._nvml, None, ""
        if nvml:
            nvml.nvmlShutdown()

    def _sysfs(self) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for n, path in enumerate(self._unlike(self._tree.find(*_JETSON))):
            permille = self._tree.number(path)
            values[f"gpu.{n}.percent"] = permille if isinstance(permille, Unavailable) else permille / 10
            shared = Unavailable("a Jetson's GPU shares the system's memory, see memory.*")
            values[f"gpu.{n}.memory_used_mb"] = shared
        for n, path in enumerate(self._tree.find(_AMD), len(values) // 2):
            folder = path.rpartition("/")[0]
            values[f"gpu.{n}.percent"] = self._tree.number(path)
            for key, name in (
                ("memory_used_mb", "mem_info_vram_used"),
                ("memory_total_mb", "mem_info_vram_total"),
            ):
                size = self._tree.number(f"{folder}/{name}")
                values[f"gpu.{n}.{key}"] = size if isinstance(size, Unavailable) else size / 1e6
        return values

    def _unlike(self, paths: list[str]) -> list[str]:
        """Each file once: a Jetson's gpu.0 is a link to the device."""
        return list({os.path.realpath(self._tree.root / path): path for path in paths}.values())

    def _cards(self, first: int) -> dict[str, Value]:
        nvml = self._open()
        if nvml is None:
            return {}
        try:
            count = nvml.nvmlDeviceGetCount()
            values: dict[str, Value] = {}
            for n in range(count):
                values.update(self._card(nvml, n, f"gpu.{first + n}"))
            return values
        except Exception as error:  # The driver was reloaded, or the card is lost: opened anew next time.
            self.close()
            return {f"gpu.{first}.percent": Unavailable(f"NVML: {error}")}

    def _card(self, nvml: Any, n: int, key: str) -> dict[str, Value]:
        card = nvml.nvmlDeviceGetHandleByIndex(n)
        readers: dict[str, Callable[[], float]] = {
            "percent": lambda: float(nvml.nvmlDeviceGetUtilizationRates(card).gpu),
            "memory_used_mb": lambda: nvml.nvmlDeviceGetMemoryInfo(card).used / 1e6,
            "memory_total_mb": lambda: nvml.nvmlDeviceGetMemoryInfo(card).total / 1e6,
            "temperature_c": lambda: float(nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU)),
            "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(card) / 1e3,
        }
        values: dict[str, Value] = {}
        for name, reader in readers.items():
            try:
                values[f"{key}.{name}"] = reader()
            except nvml.NVMLError as error:
                values[f"{key}.{name}"] = Unavailable(f"NVML: {error}")
        return values

    def _open(self) -> Any:
        """NVML, or None. Without an NVIDIA driver the binding is not even imported."""
        if self._nvml:
            return self._nvml
        if isinstance(self._tree.text("proc/driver/nvidia/version"), Unavailable):
            return None
        try:
            nvml = importlib.import_module(self._name)
            nvml.nvmlInit()
        except ImportError:
            self._why = "an NVIDIA driver is there, NVML's binding is not: pip install nvidia-ml-py"
            return None
        except Exception as error:  # NVMLError, whose class comes with the module.
            self._why = f"NVML: {error}"
            return None
        self._nvml = nvml
        return nvml
