"""The decision: Pareto front, the chosen candidate within the bounds, and why each other one was rejected.

The speed of a machine drifts, so candidates that were measured at different times are compared by `relative`:
their time as a share of the baseline's, through the parents that they were measured alternately with. A
budget applies to the 95th percentile in ms: with a median, every other frame may be late.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_vision.optimize.results import CandidateResult
from edge_vision.optimize.settings import Settings

MAX_SATURATION_DB = 1.0
"""Loss against exact arithmetic above which a runtime does not compute what the graph states."""
NOISE = 1.03
"""Times within this factor are equal: the noise of an idle machine."""
LADDER_STEP = 1.1
"""Each rung of the ladder is faster than the one above by at least this factor."""
MIN_LADDER_AGREEMENT = 0.5


@dataclass(frozen=True, slots=True)
class Decision:
    """Ids of candidates.

    chosen: None if none satisfies the bounds; nearest is then the one that misses them least, and misses
    states by how much. runner_up: the one that would be chosen without the chosen one. front: the Pareto
    front over time, agreement, memory and file size. ladder: the chosen one, then ever faster ones.
    """

    chosen: str | None
    runner_up: str | None
    nearest: str | None
    misses: tuple[str, ...]
    front: tuple[str, ...]
    ladder: tuple[str, ...]


def decide(
    results: Sequence[CandidateResult], settings: Settings
) -> tuple[tuple[CandidateResult, ...], Decision]:
    """The results with status, reason and detail, and the decision."""
    defects = {result.id: _defect(result) for result in results if result.measurement}
    sound = [result for result in results if defects.get(result.id) == ""]
    front = [result for result in sound if _dominating(result, sound) is None]
    within = [result for result in sound if not misses(result, settings)]
    best = _best(within)
    runner_up = _best([result for result in within if result is not best])
    nearest = None if best or not sound else min(sound, key=lambda one: _overshoot(one, settings))
    decided = tuple(
        result if result.measurement is None else _decided(result, defects[result.id], best, sound, settings)
        for result in results
    )
    return decided, Decision(
        best.id if best else None,
        runner_up.id if runner_up else None,
        nearest.id if nearest else None,
        tuple(misses(nearest, settings)) if nearest else (),
        tuple(result.id for result in front),
        tuple(result.id for result in _ladder(best, front)) if best else (),
    )


def _decided(
    result: CandidateResult,
    defect: str,
    best: CandidateResult | None,
    sound: Sequence[CandidateResult],
    settings: Settings,
) -> CandidateResult:
    if result is best:
        return replace(result, status="chosen", reason="fastest within the bounds", detail="")
    reason, detail = (defect, "") if defect else _rejection(result, best, sound, settings)
    return replace(result, status="rejected", reason=reason, detail=detail)


def _defect(result: CandidateResult) -> str:
    """Why a candidate is rejected whatever the bounds are, or ""."""
    measured = result.measured
    loss_db = measured.saturation_db
    if loss_db is not None and loss_db > MAX_SATURATION_DB:
        return (
            f"saturates: {loss_db:.1f} dB worse than exact arithmetic on the same graph (limit "
            f"{MAX_SATURATION_DB:g} dB)"
        )
    if result.precision == "bf16" != measured.actual["precision"]:
        return f"bf16 was requested, {measured.actual['precision']} runs"
    low, high = measured.timing.ratio_band
    if low > NOISE:
        ratio = measured.timing.ratio_to_parent
        return f"slower than its parent {result.parent}: {ratio:.2f} of its time ({low:.2f} to {high:.2f})"
    return ""


def misses(result: CandidateResult, settings: Settings) -> list[str]:
    """The bounds that a candidate violates, one sentence each."""
    found = misses_agreement(result, settings)
    if settings.budget_ms is not None and result.p95_ms > settings.budget_ms:
        found.append(f"p95 {result.p95_ms:.1f} ms exceeds the budget of {settings.budget_ms:g} ms")
    rss_mb = result.measured.rss_mb
    if settings.max_rss_mb is not None and rss_mb > settings.max_rss_mb:
        found.append(f"peak memory {rss_mb:.0f} MB exceeds the budget of {settings.max_rss_mb:g} MB")
    return found


def misses_agreement(result: CandidateResult, settings: Settings) -> list[str]:
    """The bound of the agreement in a sentence, if a candidate violates it."""
    if result.agreement >= settings.min_agreement - 1e-9:
        return []
    found = result.measured.agreement
    changed = f"{found.lost} lost, {found.gained} gained, of {found.total}"
    return [f"agreement {result.agreement:.3f} is below {settings.min_agreement:.3f} ({changed})"]


def _overshoot(result: CandidateResult, settings: Settings) -> float:
    """The largest violation of a bound, as a share of it."""
    shares = [(settings.min_agreement - result.agreement) / settings.min_agreement]
    if settings.budget_ms is not None:
        shares.append(result.p95_ms / settings.budget_ms - 1.0)
    if settings.max_rss_mb is not None:
        shares.append(result.measured.rss_mb / settings.max_rss_mb - 1.0)
    return max(shares)


def _best(within: Sequence[CandidateResult]) -> CandidateResult | None:
    """The fastest; of those equally fast the one with the highest agreement, then the least memory."""
    if not within:
        return None
    fastest = min(result.relative for result in within)
    equal = [result for result in within if result.relative <= NOISE * fastest]
    return min(equal, key=lambda one: (-one.agreement, one.measured.rss_mb, one.relative))


def _dominating(result: CandidateResult, others: Sequence[CandidateResult]) -> CandidateResult | None:
    """A candidate that is nowhere worse and clearly better somewhere: time, agreement, memory, file size."""
    rss_mb = result.measured.rss_mb
    for other in others:
        nowhere_worse = (
            (result.classes or not other.classes)
            and other.relative <= result.relative
            and other.agreement >= result.agreement
            and other.measured.rss_mb <= rss_mb * 1.01
            and other.file_bytes <= result.file_bytes
        )
        better = (
            other.relative * NOISE < result.relative
            or other.agreement > result.agreement
            or other.measured.rss_mb * NOISE < rss_mb
            or other.file_bytes < result.file_bytes
        )
        if other is not result and nowhere_worse and better:
            return other
    return None


def _rejection(
    result: CandidateResult,
    best: CandidateResult | None,
    sound: Sequence[CandidateResult],
    settings: Settings,
) -> tuple[str, str]:
    """Reason and detail for a sound candidate that is not the best."""
    missed = misses(result, settings)
    if missed:
        return "; ".join(missed), ""
    better = _dominating(result, sound)
    if better is not None:
        return f"dominated by {better.id}", _comparison(result, better)
    assert best is not None  # A candidate within the bounds exists, so there is a best one.
    fastest = min(one.relative for one in sound if not misses(one, settings))
    if result.relative <= NOISE * fastest:
        reason = f"as fast as {best.id} within {NOISE - 1:.0%}, which has more agreement or less memory"
        return reason, _comparison(result, best)
    return f"on the front, but {best.id} is preferred", _comparison(result, best)


def _comparison(result: CandidateResult, other: CandidateResult) -> str:
    return (
        f"{other.relative:.2f} against {result.relative:.2f} of the baseline's time, agreement "
        f"{other.agreement:.3f} against {result.agreement:.3f}, {other.measured.rss_mb:.0f} against "
        f"{result.measured.rss_mb:.0f} MB of memory, {other.file_bytes / 1e6:.1f} against "
        f"{result.file_bytes / 1e6:.1f} MB on disk"
    )


def _ladder(best: CandidateResult, front: Sequence[CandidateResult]) -> list[CandidateResult]:
    """From the chosen one down: each rung clearly faster than the one above, and on the front of time and
    agreement alone. Those that detect fewer classes are the last ones: their agreement is on these alone."""
    below = [one for one in front if MIN_LADDER_AGREEMENT <= one.agreement <= best.agreement]
    rungs = [best]
    whole, some = ([one for one in below if bool(one.classes) == few] for few in (False, True))
    for result in [*reversed(time_agreement_front(whole)), *reversed(time_agreement_front(some))]:
        if result.relative * LADDER_STEP < rungs[-1].relative:
            rungs.append(result)
    return rungs


def time_agreement_front(results: Sequence[CandidateResult]) -> list[CandidateResult]:
    """The Pareto front over time and agreement, fastest first. Both increase from one to the next."""
    front: list[CandidateResult] = []
    for result in sorted(results, key=lambda one: (one.relative, -one.agreement)):
        if not front or result.agreement > front[-1].agreement:
            front.append(result)
    return front
