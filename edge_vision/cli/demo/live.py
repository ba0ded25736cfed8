"""The live line of a running pipeline: its figures as text."""

from __future__ import annotations

from edge_vision.cli.demo.record import AGE_WINDOW, RunRecord
from edge_vision.diagnostics.process_usage import ProcessUsage


def status_line(record: RunRecord, usage: ProcessUsage) -> str:
    """Frames, gated, fps, p95 age, CPU, RSS."""
    ledger, age = record.ledger, record.age_ms(last=AGE_WINDOW)
    if not record.seen:
        return f"starting: {_waiting_for(record)}"
    lost = {fate: ledger[fate] for fate in ("rejected", "superseded", "failed") if ledger[fate]}
    parts = [
        f"frames {ledger['received']}",
        f"inferred {ledger['inferred']}",
        f"gated {ledger['gated']}",
        *(f"{fate} {count}" for fate, count in lost.items()),
        f"{record.fps_hz():.1f} fps",
        f"age p95 {age['p95']:.0f} ms" if age else "",
        f"CPU {_or_unknown(usage.cpu_percent)} %",
        f"RSS {_or_unknown(usage.rss_mb)} MB",
    ]
    return "  ".join(part for part in parts if part)


def _waiting_for(record: RunRecord) -> str:
    if not record.statuses:
        return "loading"
    return ", ".join(f"{node} {text}" for node, text in record.texts.items())


def _or_unknown(value: float | None) -> str:
    return "unavailable" if value is None else f"{value:.0f}"
