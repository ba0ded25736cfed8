"""What the page shows of a pipeline's statuses. Imports no ROS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_vision.core.diagnostic_status import StatusEntry
from edge_vision.core.ledger import FATES, MAX_REASONS

STAGES = ("source", "gate", "cascade", "detector")
MAX_PROBLEMS = 16
MAX_TEXT_CHARS = 600
_BACKEND = ("backend", "device", "precision", "provider")
# Part, key, label, unit. A figure that is unavailable is not listed.
_FIGURES = (
    ("gate", "rate_in_hz", "Frames received", "Hz"),
    ("detector", "rate_out_hz", "Frames inferred", "Hz"),
    ("detector", "age_ms.p50", "Age of detections, median", "ms"),
    ("detector", "age_ms.p95", "Age of detections, 95 %", "ms"),
    ("detector", "tracked.age_ms.p95", "Age of predicted boxes, 95 %", "ms"),
    ("detector", "inference_ms.p50", "Inference, median", "ms"),
    ("gate", "blind_ms", "Since the last frame that passed", "ms"),
    ("system", "cpu.percent", "CPU of the machine", "%"),
    ("system", "memory.used_mb", "Memory in use", "MB"),
    ("system", "temperature_c.max", "Hottest sensor", "°C"),
    ("system", "power_w", "Power", "W"),
    ("system", "energy_per_inferred_frame_j", "Energy per inferred frame", "J"),
    ("system", "gpu.0.percent", "GPU", "%"),
    ("gate", "governor.cpu_percent", "CPU of the budget", "%"),
)


def status_view(parts: Mapping[str, StatusEntry], silent_s: float) -> dict[str, Any]:
    """A pipeline as JSON: cause and remedy, ledger, audit, figures, stages, processes, backend, problems.

    parts: by local name, as "gate". silent_s: since the last report.
    """
    empty = StatusEntry("")
    output, gate, detector = (parts.get(name, empty) for name in ("output", "gate", "detector"))
    last = detector if "ledger.received" in detector.values else gate
    figures = [
        [label, number, unit]
        for part, key, label, unit in _FIGURES
        if (number := parts.get(part, empty).number(key)) is not None
    ]
    problems = [(name, one) for name, one in parts.items() if one.level and name != "output"]
    return {
        "silent_s": round(silent_s, 1),
        "cause": output.text("cause"),
        "level": output.level_name,
        "message": output.message[:MAX_TEXT_CHARS],
        "since_s": output.number("since_s") or 0.0,
        "ledger": _ledger(last),
        "audit": _audit(gate),
        "figures": figures,
        "throttling": parts.get("system", empty).text("throttling"),
        "stages": [_stage(name, parts[name]) for name in STAGES if name in parts],
        "processes": [_process(one) for name, one in parts.items() if name.startswith("process ")],
        "model": detector.text("model"),
        "backend": _backend(detector),
        "problems": [
            [one.level_name, name, one.message[:MAX_TEXT_CHARS]] for name, one in problems[:MAX_PROBLEMS]
        ],
    }


def _ledger(one: StatusEntry) -> dict[str, Any]:
    """Counts by fate, and [fate, reason, frames]."""
    counts = {fate: one.number(f"ledger.{fate}") for fate in ("received", *FATES[:-1], "in_flight")}
    reasons = [
        [fate, key.removeprefix(f"ledger.{fate}."), one.number(key)]
        for fate in FATES[:-1]
        for key in one.values
        if key.startswith(f"ledger.{fate}.")
    ]
    return {
        "counts": {fate: n for fate, n in counts.items() if n is not None},
        "balanced": one.text("ledger.balanced"),
        "reasons": reasons[:MAX_REASONS],
    }


def _audit(gate: StatusEntry) -> dict[str, Any] | None:
    """The estimate of the share of skipped frames with a missed object; None before the first audit."""
    rate, low, high = (gate.number(f"audit.miss_rate{end}") for end in ("", "_low", "_high"))
    if rate is None or low is None or high is None:
        return None
    counts = {name: gate.number(f"audit.{name}") for name in ("audited", "missed")}
    return {"rate": rate, "low": low, "high": high, "open": gate.text("audit.open") == "True", **counts}


def _stage(name: str, one: StatusEntry) -> list[Any]:
    figures = [one.number(key) for key in ("rate_in_hz", "rate_out_hz", "process_ms.p50", "process_ms.p95")]
    return [name, one.level_name, one.message[:MAX_TEXT_CHARS], *figures]


def _process(one: StatusEntry) -> list[Any]:
    return [one.text("pid"), one.number("cpu_percent"), one.number("rss_mb")]


def _backend(detector: StatusEntry) -> dict[str, str]:
    asked, runs = (
        {name: text for name in _BACKEND if (text := detector.text(f"backend.{side}.{name}"))}
        for side in ("requested", "actual")
    )
    # "auto auto auto" would not show what is automatic.
    requested = ", ".join(f"{name} {text}" for name, text in asked.items())
    actual = " ".join(runs.values())
    fallback = detector.text("backend.fallback_reason")[:MAX_TEXT_CHARS]
    return {"requested": requested, "actual": actual, "fallback": fallback}
