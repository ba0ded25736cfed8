"""The progress line of a running pipeline."""

from __future__ import annotations

from edge_vision.diagnostics.process_usage import ProcessUsage
from edge_vision.evaluate.live.run_record import AGE_WINDOW, RunRecord


def status_line(record: RunRecord, usage: ProcessUsage, ended: bool = False) -> str:
    """Frame accounting, p95 age and RSS; unless the run has ended, inferred frames per second and CPU."""
    ledger, age = record.ledger, record.age_ms(last=AGE_WINDOW)
    if not record.detections:
        return f"starting: {_startup_state(record)}"
    others = {fate: ledger[fate] for fate in ("rejected", "superseded", "failed") if ledger[fate]}
    parts = [
        f"frames {ledger['received']}",
        f"inferred {ledger['inferred']}",
        f"gated {ledger['gated']}",
        *(f"{fate} {count}" for fate, count in others.items()),
        "" if ended else f"{record.inferred_hz():.1f} inferred/s",
        f"age p95 {age['p95']:.0f} ms" if age else "",
        "" if ended else f"CPU {_number(usage.cpu_percent)} %",
        f"RSS {_number(usage.rss_mb)} MB",
    ]
    return "  ".join(part for part in parts if part)


def _startup_state(record: RunRecord) -> str:
    if not record.statuses:
        return "loading"
    return ", ".join(f"{node} {text}" for node, text in record.texts.items())


def _number(value: float | None) -> str:
    return "unavailable" if value is None else f"{value:.0f}"
