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
    """Reads every GPU of the machine, as gpu.N. nvml: the name of the module, imported when first needed."""

    def __init__(self, tree: Tree, nvml: str = "pynvml") -> None:
        self._tree = tree
        self._name = nvml
        self._nvml: Any = None
        self._reason = ""

    def read(self) -> dict[str, Value]:
        """gpu.N.percent, .memory_used_mb, .memory_total_mb, .temperature_c and .power_w; only `gpu`, with the
        reason, if no GPU can be read."""
        values = self._sysfs()
        values.update(self._nvml_gpus(len({key.split(".")[1] for key in values})))
        return values or {"gpu": Unavailable(self._reason or "no GPU that can be read")}

    def close(self) -> None:
        nvml, self._nvml, self._reason = self._nvml, None, ""
        if nvml:
            nvml.nvmlShutdown()

    def _sysfs(self) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for n, path in enumerate(self._distinct(self._tree.find(*_JETSON))):
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

    def _distinct(self, paths: list[str]) -> list[str]:
        """Each file once: gpu.0 of a Jetson is a link to the device."""
        return list({os.path.realpath(self._tree.root / path): path for path in paths}.values())

    def _nvml_gpus(self, first: int) -> dict[str, Value]:
        nvml = self._open()
        if nvml is None:
            return {}
        try:
            count = nvml.nvmlDeviceGetCount()
            values: dict[str, Value] = {}
            for n in range(count):
                values.update(self._nvml_gpu(nvml, n, f"gpu.{first + n}"))
            return values
        except Exception as error:  # The driver was reloaded, or the GPU is lost: reopened next time.
            self.close()
            return {f"gpu.{first}.percent": Unavailable(f"NVML: {error}")}

    def _nvml_gpu(self, nvml: Any, n: int, key: str) -> dict[str, Value]:
        device = nvml.nvmlDeviceGetHandleByIndex(n)
        readers: dict[str, Callable[[], float]] = {
            "percent": lambda: float(nvml.nvmlDeviceGetUtilizationRates(device).gpu),
            "memory_used_mb": lambda: nvml.nvmlDeviceGetMemoryInfo(device).used / 1e6,
            "memory_total_mb": lambda: nvml.nvmlDeviceGetMemoryInfo(device).total / 1e6,
            "temperature_c": lambda: float(nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU)),
            "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(device) / 1e3,
        }
        values: dict[str, Value] = {}
        for name, reader in readers.items():
            try:
                values[f"{key}.{name}"] = reader()
            except nvml.NVMLError as error:
                values[f"{key}.{name}"] = Unavailable(f"NVML: {error}")
        return values

    def _open(self) -> Any:
        """NVML, or None. The Python binding is not imported without an NVIDIA driver."""
        if self._nvml:
            return self._nvml
        if isinstance(self._tree.text("proc/driver/nvidia/version"), Unavailable):
            return None
        try:
            nvml = importlib.import_module(self._name)
            nvml.nvmlInit()
        except ImportError:
            self._reason = (
                "an NVIDIA driver is installed, package nvidia-ml-py is not: pip install nvidia-ml-py"
            )
            return None
        except Exception as error:  # NVMLError, a class of the imported module.
            self._reason = f"NVML: {error}"
            return None
        self._nvml = nvml
        return nvml
