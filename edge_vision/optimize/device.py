"""This machine and its software, as far as measurements depend on them."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import version

from edge_vision.backends import runtime_versions
from edge_vision.backends.host import usable_cores
from edge_vision.optimize.quantization import int8_recipe

_FLAGS = (*int8_recipe.SAFE_FLAGS, *int8_recipe.BF16_FLAGS, "avx2", "avx512f", "asimd")


@dataclass(frozen=True, slots=True)
class OptimizedDevice:
    """flags: of the CPU, those that matter. load: mean of the last minute; None if not reported.

    versions: of the runtimes and of the packages that make variants.
    """

    cpu: str
    cores: int
    flags: tuple[str, ...]
    system: str
    load: float | None
    versions: Mapping[str, str]


def this_device(flags: Collection[str]) -> OptimizedDevice:
    """This machine. flags: of its CPU."""
    return OptimizedDevice(
        int8_recipe.cpu_name(),
        usable_cores(),
        tuple(flag for flag in _FLAGS if flag in flags),
        platform.platform(),
        system_load(),
        {**runtime_versions(), **{name: version(name) for name in ("onnx", "numpy")}},
    )


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
