"""From measured rows to a decision: the front, the chosen one under the budgets, why each other one lost.

A row here is one of report.json. A machine's speed drifts, so rows that were measured at different times
are compared by `relative`: their time as a share of the baseline's, by way of the parents that they were
measured in turns with. A budget is for the 95th percentile in ms: a median lets every other frame be late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_vision.optimize.settings import Settings

MAX_SATURATION_DB = 1.0
"""Loss against exact arithmetic above which a runtime does not compute what the graph says."""
ALIKE = 1.03
"""Two times within this are one time: the noise of a quiet machine."""
STEP = 1.1
"""A lower rung of the ladder is faster by at least this."""
LEAST_AGREEMENT = 0.5
"""A rung that loses more is no help."""

UNMEASURED = ("failed", "built")
"""Status of a row without figures, which is no candidate."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """Ids of rows. chosen: None where no row holds the budgets; nearest tells then what is missed least, and
    misses by how much. front: the Pareto front. ladder: the chosen one, then ever faster ones."""

    chosen: str | None
    nearest: str | None
    misses: tuple[str, ...]
    front: tuple[str, ...]
    ladder: tuple[str, ...]


def decide(rows: Sequence[Row], settings: Settings) -> Decision:
    """Set status and reason of every row that was measured, and choose."""
    sound = []
    for row in rows:
        if row["status"] in UNMEASURED:
            continue
        unsound = _unsound(row)
        row["status"], row["reason"] = ("rejected", unsound) if unsound else ("measured", "")
        if not unsound:
            sound.append(row)
    front = [row for row in sound if _beaten_by(row, sound) is None]
    fit = [row for row in sound if not misses(row, settings)]
    best = _best(fit)
    for row in sound:
        row["status"], row["reason"] = _record(row, best, sound, settings)
    nearest = None if best or not sound else min(sound, key=lambda row: _overshoot(row, settings))
    return Decision(
        best["id"] if best else None,
        nearest["id"] if nearest else None,
        tuple(misses(nearest, settings)) if nearest else (),
        tuple(row["id"] for row in front),
        tuple(row["id"] for row in _ladder(best, front)) if best else (),
    )


def _unsound(row: Mapping[str, Any]) -> str:
    """Why a row is out whatever the budgets, or ""."""
    loss_db = row.get("saturation_db")
    if loss_db is not None and loss_db > MAX_SATURATION_DB:
        return (
            f"saturates: {loss_db:.1f} dB worse than exact arithmetic on the same graph, allowed is "
            f"{MAX_SATURATION_DB:g} dB"
        )
    if row.get("effective_precision") not in (None, row["precision"]) and row["precision"] == "bf16":
        return f"asked for bf16, runs {row['effective_precision']}"
    if row["ratio_band"][0] > ALIKE:
        low, high = row["ratio_band"]
        return (
            f"slower than its parent {row['parent']}: {row['ratio_to_parent']:.2f} times its time "
            f"({low:.2f} to {high:.2f})"
        )
    return ""


def misses(row: Mapping[str, Any], settings: Settings) -> list[str]:
    """The bounds that a row does not hold, in words."""
    told = []
    least = 1.0 - settings.max_accuracy_loss
    if row["agreement"] < least - 1e-9:
        told.append(f"agreement {row['agreement']:.3f}, asked for {least:.3f} or more")
    if settings.budget_ms is not None and row["p95_ms"] > settings.budget_ms:
        told.append(f"p95 {row['p95_ms']:.1f} ms, the budget is {settings.budget_ms:g} ms")
    if settings.max_rss_mb is not None and row["rss_mb"] > settings.max_rss_mb:
        told.append(f"peak memory {row['rss_mb']:.0f} MB, the budget is {settings.max_rss_mb:g} MB")
    return told


def _overshoot(row: Mapping[str, Any], settings: Settings) -> float:
    """How far a row is from the bounds, as a share of the worst one."""
    least = 1.0 - settings.max_accuracy_loss
    shares = [(least - row["agreement"]) / least]
    if settings.budget_ms is not None:
        shares.append(row["p95_ms"] / settings.budget_ms - 1.0)
    if settings.max_rss_mb is not None:
        shares.append(row["rss_mb"] / settings.max_rss_mb - 1.0)
    return float(max(shares))


def _best(fit: Sequence[Row]) -> Row | None:
    """The fastest; of those as fast, the one that agrees most, then takes least memory."""
    if not fit:
        return None
    fastest = min(row["relative"] for row in fit)
    alike = [row for row in fit if row["relative"] <= ALIKE * fastest]
    return min(alike, key=lambda row: (-row["agreement"], row["rss_mb"], row["relative"]))


def _beaten_by(row: Row, rows: Sequence[Row]) -> Row | None:
    """A row that is nowhere worse and clearly better somewhere, over time, agreement, memory and size."""
    for other in rows:
        if other is row:
            continue
        nowhere_worse = (
            other["relative"] <= row["relative"]
            and other["agreement"] >= row["agreement"]
            and other["rss_mb"] <= row["rss_mb"] * 1.01
            and other["bytes"] <= row["bytes"]
        )
        better = (
            other["relative"] * ALIKE < row["relative"]
            or other["agreement"] > row["agreement"]
            or other["rss_mb"] * ALIKE < row["rss_mb"]
            or other["bytes"] < row["bytes"]
        )
        if nowhere_worse and better:
            return other
    return None


def _record(row: Row, best: Row | None, sound: Sequence[Row], settings: Settings) -> tuple[str, str]:
    if row is best:
        return "chosen", "the fastest of those that hold the bounds"
    missed = misses(row, settings)
    if missed:
        return "rejected", "; ".join(missed)
    better = _beaten_by(row, sound)
    if better is not None:
        return "rejected", f"beaten by {better['id']} on every axis that differs: {_compared(row, better)}"
    assert best is not None  # It holds the bounds, so that there is a best one.
    return (
        "rejected",
        f"holds the bounds and is on the front; {best['id']} is preferred: {_compared(row, best)}",
    )


def _compared(row: Row, other: Row) -> str:
    return (
        f"{other['relative']:.2f} against {row['relative']:.2f} of the baseline's time, agreement "
        f"{other['agreement']:.3f} against {row['agreement']:.3f}, {other['rss_mb']:.0f} against "
        f"{row['rss_mb']:.0f} MB, "
        f"{other['bytes'] / 1e6:.1f} against {row['bytes'] / 1e6:.1f} MB on disk"
    )


def _ladder(best: Row, front: Sequence[Row]) -> list[Row]:
    """From the chosen one down: each rung clearly faster than the one above, and less accurate. No rung is
    both slower and less accurate than another: a step down that costs more than it has to is none."""
    below = [row for row in front if LEAST_AGREEMENT <= row["agreement"] <= best["agreement"]]
    rungs = [best]
    for row in sorted(below, key=lambda row: -row["relative"]):
        outdone = any(
            other["relative"] < row["relative"] and other["agreement"] >= row["agreement"] for other in below
        )
        if row["relative"] * STEP < rungs[-1]["relative"] and not outdone:
            rungs.append(row)
    return rungs
