"""The parts of report.json that both evaluations share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from edge_vision.bundles.store import cache_dir, load_bundle
from edge_vision.evaluate.condition_data import ConditionData
from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.metrics.delays import SOON_MS
from edge_vision.evaluate.metrics.metric import MethodRun, Metric, compute_all
from edge_vision.evaluate.reference.clips import CLIPS
from edge_vision.evaluate.reference.detector import BUNDLE
from edge_vision.offline.provenance import hash_of, machine, versions

MAX_LISTED = 40
_ROUNDING = 1e-9


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


def condition_header(condition: Condition, data: ConditionData) -> dict[str, Any]:
    """What every entry of a condition begins with."""
    return {
        "constructed": condition.constructed,
        "kind": condition.kind,
        "split": condition.split,
        "fps_hz": condition.fps_hz,
        "frames": len(data.reference),
        "events": len(data.events),
        "noise_ceiling": data.noise_ceiling,
    }


def method_entry(
    metrics: Sequence[Metric], run: MethodRun, reasons: Counter[str] | None = None
) -> dict[str, Any]:
    """All figures of one method, and the first frames of its missed and late events."""
    pairs = list(zip(run.data.events, run.delays, strict=True))
    late = [event.first for event, delay in pairs if not delay.missed and not delay.within(SOON_MS)]
    entry: dict[str, Any] = {
        **compute_all(metrics, run),
        "missed_frames": [event.first for event, delay in pairs if delay.missed][:MAX_LISTED],
        "late_frames": late[:MAX_LISTED],
    }
    if reasons is not None:
        entry["reasons"] = dict(sorted(reasons.items()))
    return entry


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
