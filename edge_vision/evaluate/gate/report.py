"""The report: a table on screen, a headline, and report.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edge_vision.bundles.store import load_bundle
from edge_vision.diagnostics.provenance import machine, versions
from edge_vision.evaluate.reference.clips import CLIPS
from edge_vision.evaluate.reference.detector import BUNDLE

SHORT = {
    "fixed_tracker": "track",
    "fixed_tracker_cmc": "track+cmc",
    "running_average_a": "avg a",
    "running_average_b": "avg b",
    "running_average_c": "avg c",
}
COLUMNS = (
    f"{'condition':<24}{'events':>7}{'recall':>8}{'lower':>7}{'p95 ms':>8}  {'best rival':<14}"
    f"{'F1':>7}  {'best rival':<16}{'calls':>6}{'gap ms':>8}{'gate ms':>9}  verdict"
)


def table_line(name: str, condition: Mapping[str, Any], gate: str) -> str:
    """One line: the gate, and the best rivals in delay and F1 at its own number of calls."""
    mine, verdict = condition["methods"][gate], condition["verdict"][gate]
    delay, f1 = verdict["delay_ms_p95"]["rival"], verdict["frame_f1"]["rival"]
    lower = mine["recall_100ms_lower95"]
    title = name if gate == "gate" else f"  {gate.rpartition(':')[2]}"
    return (
        f"{title:<24}{condition['events']:>7}{_share(mine['recall_100ms']):>8}"
        f"{lower:>7.2f}{_plain(mine['delay_ms_p95']):>8}  {_rival(delay, _plain):<14}"
        f"{_ratio(mine['frame_f1']):>7}  {_rival(f1, _ratio):<16}{_share(mine['calls_share']):>6}"
        f"{mine['worst_gap_ms']:>8.0f}{_small(mine['gate_ms_p50']):>9}  {_failed(verdict)}"
    )


def _rival(found: tuple[str, float] | None, form: Callable[[float | None], str]) -> str:
    """Its figure and a short name."""
    if found is None:
        return "-"
    name, value = found
    return f"{form(value)} {SHORT.get(name, name)}"


def _failed(verdict: Mapping[str, Any]) -> str:
    failed = [name for name, check in verdict.items() if check["met"] is False]
    return "fails " + ", ".join(failed) if failed else "good"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def headline(conditions: Mapping[str, Mapping[str, Any]]) -> str:
    """What our gate shows, in one line."""
    if not conditions:
        return "nothing was evaluated"
    checks = [condition["verdict"]["gate"] for condition in conditions.values()]
    events = sum(condition["events"] for condition in conditions.values())
    constructed = sum(bool(condition["constructed"]) for condition in conditions.values())
    met = {name: _met(checks, name) for name in checks[0]}
    return (
        f"{events} events in {len(checks)} conditions ({constructed} constructed): recall within 100 ms "
        f">= 99 % in {met['recall_100ms']}, p95 delay <= 1/3 of the best rival's at equal calls in "
        f"{met['delay_ms_p95']}, "
        f"frame F1 no worse in {met['frame_f1']}, calls within target in {met['calls_share']}, "
        f"worst gap within max_blind_ms in {met['worst_gap_ms']}, "
        f"while moving within max_blind_moving_ms in {met['worst_gap_moving_ms']}"
    )


def _met(checks: list[Mapping[str, Any]], name: str) -> str:
    said = [check[name]["met"] for check in checks if check[name]["met"] is not None]
    return f"{sum(said)}/{len(said)}"


def report(
    conditions: Mapping[str, Mapping[str, Any]], quick: bool, complete: bool, seconds: float
) -> dict[str, Any]:
    """All that report.json holds."""
    bundle = load_bundle(BUNDLE)
    return {
        "headline": headline(conditions),
        "complete": complete,
        "quick": quick,
        "conditions": dict(conditions),
        "hashes": {"model": bundle.sha256, "data": data_hashes()},
        "machine": machine(),
        "versions": versions(),
        "seconds": round(seconds, 1),
    }


def data_hashes() -> dict[str, str]:
    """sha256 of each clip."""
    from edge_vision.bundles.store import cache_dir
    from edge_vision.diagnostics.provenance import hash_of

    return {name: hash_of(cache_dir() / "video" / name) for name in CLIPS}
