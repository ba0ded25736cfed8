"""A machine and its software, as far as measurements depend on them.

`python -m edge_vision.optimize.device` prints this one as JSON.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from edge_vision.backends import available_backends, runtime_versions
from edge_vision.backends.host import installed_packages, usable_cores
from edge_vision.optimize import processor
from edge_vision.optimize.quantization import int8_recipe
from edge_vision.optimize.remote.address import LOCAL

_FLAGS = (*int8_recipe.SAFE_FLAGS, *int8_recipe.BF16_FLAGS, "avx2", "avx512f", "asimd")


@dataclass(frozen=True, slots=True)
class OptimizedDevice:
    """flags: of the CPU, those that matter. load: mean of the last minute; None if not reported.

    versions: of the runtimes and of the packages that make variants. address: as given with `--device`.
    architecture: as `uname -m`. backends: the available ones, each with the versions of its packages.
    unavailable: the others, each with the reason.
    """

    cpu: str
    cores: int
    flags: tuple[str, ...]
    system: str
    load: float | None
    versions: Mapping[str, str]
    address: str = LOCAL
    architecture: str = ""
    backends: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """The machine that a measurement is valid for."""
        return f"{self.address}: {self.cpu}, {self.cores} cores"


def this_device() -> OptimizedDevice:
    """This machine."""
    flags, reasons = processor.cpu_flags(), available_backends()
    return OptimizedDevice(
        processor.cpu_name(),
        usable_cores(),
        tuple(flag for flag in _FLAGS if flag in flags),
        platform.platform(),
        system_load(),
        {**runtime_versions(), **installed_packages(("onnx", "numpy"))},
        architecture=platform.machine(),
        backends={name: _packages(name) for name, reason in reasons.items() if reason is None},
        unavailable={name: reason for name, reason in reasons.items() if reason is not None},
    )


def _packages(backend: str) -> tuple[str, ...]:
    """Name and version of each installed package of a backend."""
    return tuple(f"{name} {version}" for name, version in sorted(runtime_versions([backend]).items()))


def system_load() -> float | None:
    """Mean number of runnable processes over the last minute; None if the system does not report it."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def load_warning(load: float | None, cores: int) -> str:
    """A warning that other processes distort the measurements, or ""."""
    if load is None or load <= cores / 2:
        return ""
    return (
        f"the machine was busy at the start: load {load:g} on {cores} cores. Latencies are too high and "
        "several threads appear slower than they are; ratios to parents are more reliable"
    )


if __name__ == "__main__":
    print(json.dumps(asdict(this_device())))
