"""Rows of the table: from what a job came to, and for people."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edge_vision.backends import runtime_versions
from edge_vision.backends.host import usable_cores
from edge_vision.optimize.pareto import UNMEASURED
from edge_vision.optimize.quantization import int8_recipe
from edge_vision.optimize.trial import TrialOutcome

Row = dict[str, Any]


def figures(outcome: TrialOutcome, task: str) -> Row:
    """What a measurement came to. agreement: F1 of a detector, top-1 of a classifier; both also by name."""
    result = dict(outcome.result)
    found = result.pop("agreement")
    actual = result.pop("actual")
    return {
        "map": None,
        "map50": None,
        **result,
        "agreement": round(found["value"], 4),
        "agreement_f1": round(found["value"], 4) if task == "detect" else None,
        "agreement_top1": round(found["value"], 4) if task == "classify" else None,
        "score_shift": round(found["score_shift"], 4),
        "lost": found["lost"],
        "gained": found["gained"],
        "of": found["of"],
        "agreement_sure": None if found["sure"] is None else round(found["sure"], 4),
        "sure_of": found["sure_of"],
        "effective_precision": actual["precision"],
        "actual": actual,
        "status": "measured",
        "reason": "",
    }


def failure(outcome: TrialOutcome) -> Row:
    """What a job came to that has no result."""
    return {"status": "failed", "reason": f"{outcome.status}: {outcome.reason}"}


def line(row: Row) -> str:
    """One line when it is done."""
    if row["status"] in UNMEASURED:
        return f"{row['id']:38} {row['reason']}"
    return (
        f"{row['id']:38} p50 {row['p50_ms']:7.2f} ms, {row['ratio_to_parent']:.2f} of its parent's, "
        f"agreement {row['agreement']:.3f}, {row['rss_mb']:.0f} MB, file {row['bytes'] / 1e6:.1f} MB"
    )


def kept_layers(found: Mapping[str, Any]) -> str:
    """What the search of layers came to, in words: see `sensitivity`."""
    if "failure" in found:
        return f"mixed precision: not searched: {found['failure']}"
    if not found["kept"]:
        return "mixed precision: no layer helps on the calibration clip: none stays in fp32"
    kept, layers = found["kept"], found["layers"]
    share = sum(layer["arithmetic"] for layer in layers[: len(kept)])
    text = f"mixed precision: {len(kept)} of {len(layers)} layers stay in fp32, {share:.0%} of the arithmetic"
    if found["holds"]:
        return text
    nearest = {one["kept"]: one["agreement"] for one in found["search"]}[len(kept)]
    return (
        f"{text}: as many as are worth it, since with more, fp16 weights agree more and are as fast; that is "
        f"the nearest, {nearest:.3f} on the calibration clip instead of {found['bound']:.3f}"
    )


def device(flags: frozenset[str]) -> dict[str, Any]:
    """This machine and its software, as far as figures depend on it."""
    known = (*int8_recipe.SAFE_FLAGS, *int8_recipe.BF16_FLAGS, "avx2", "avx512f", "asimd")
    return {
        "cpu": int8_recipe.cpu_name(),
        "cores": usable_cores(),
        "flags": [flag for flag in known if flag in flags],
        "system": platform.platform(),
        "load": load(),
        "versions": {**runtime_versions(), **{name: runtime_version(name) for name in ("onnx", "numpy")}},
    }


def load() -> float | None:
    """Processes that wanted to run, mean of the last minute; None where the system does not tell."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def busy(at_start: float | None, cores: int) -> str:
    """What to say where others kept the machine busy before anything was measured, or ""."""
    if at_start is None or at_start <= cores / 2:
        return ""
    return (
        f"the machine was busy when this began: load {at_start:g} on {cores} cores. Times are long, several "
        "threads look worse than they are; ratios to parents hold better"
    )


def runtime_version(package: str) -> str:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
