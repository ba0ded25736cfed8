"""The parts of report.json that all evaluations share: targets, and where the figures come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from edge_vision.bundles.store import cache_dir, load_bundle
from edge_vision.evaluate.reference.clips import CLIPS
from edge_vision.evaluate.reference.detector import BUNDLE
from edge_vision.offline.provenance import hash_of, machine, versions

_ROUNDING = 1e-9
_TIMES = ("detector_cpu_s", "camera_cpu_s", "cpu_s_per_1000", "gate_ms", "cascade_ms", "tracker_ms")
"""Beginnings of the names of measured times. Delays are those of the frames' stamps."""
_JUDGEMENTS = ("verdict", "checks", "fixed_interval_tracker")
"""Parts of a result that depend on measured times; the last is the cheapest interval of a sweep."""


class TargetCheck(TypedDict):
    """A target: the value, its limit, and whether it is met; None if one of them is unknown.

    baseline: (name, value) of the best baseline, where the limit derives from it.
    """

    value: float | None
    limit: float | None
    met: bool | None
    baseline: tuple[str, float] | None


def check(
    value: float | None,
    limit: float | None,
    met: Callable[[float, float], bool],
    baseline: tuple[str, float] | None = None,
) -> TargetCheck:
    """Compare a value with its limit."""
    known = None if value is None or limit is None else bool(met(value, limit))
    return {"value": value, "limit": limit, "met": known, "baseline": baseline}


def at_least(value: float, limit: float) -> bool:
    """value >= limit, up to rounding."""
    return value >= limit - _ROUNDING


def at_most(value: float, limit: float) -> bool:
    """value <= limit, up to rounding."""
    return value <= limit + _ROUNDING


def failed(checks: Mapping[str, TargetCheck]) -> list[str]:
    """The names of the targets that are not met."""
    return [name for name, check in checks.items() if check["met"] is False]


def count_met(checks: Sequence[Mapping[str, TargetCheck]], name: str) -> tuple[int, int]:
    """How often a target is met, of how many known results."""
    known = [met for one in checks if (met := one[name]["met"]) is not None]
    return sum(known), len(known)


def results_sha256(results: Mapping[str, Any]) -> str:
    """A hash of all results that are no measured times: the same on machines with the same runtime.

    Instructions of the processor that only one machine has may change the last bits of an inference.
    """
    return hashlib.sha256(json.dumps(_without_times(results), sort_keys=True).encode()).hexdigest()


def _without_times(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {
            name: one
            for name, one in value.items()
            if not name.startswith(_TIMES) and name not in _JUDGEMENTS
        }
        return {name: _without_times(one) for name, one in kept.items()}
    return [_without_times(one) for one in value] if isinstance(value, (list, tuple)) else value


def provenance() -> dict[str, Any]:
    """Hashes of model and clips, the machine, and the library versions."""
    return {
        "hashes": {
            "model": load_bundle(BUNDLE).sha256,
            "data": {name: hash_of(cache_dir() / "video" / name) for name in CLIPS},
        },
        "machine": machine(),
        "versions": versions(),
    }
