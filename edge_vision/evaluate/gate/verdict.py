"""Whether a gate meets its targets: fixed ones, and those relative to the best baseline at equal cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from edge_vision.evaluate.metrics.builtin import BETTER, BY_NAME
from edge_vision.evaluate.results import TargetCheck, at_least, at_most, check, count_met
from edge_vision.gate.frame_gate import GateConfig

MIN_RECALL = 0.99
MAX_DELAY_RATIO = 1 / 3
_ROUNDING_MS = 0.001
MAX_INFERRED_SHARE = {
    "long_quiet": 0.05,
    "static": 0.25,
    "pan_tilt": 0.40,
    "drive_zoom": 0.40,
    "shake": 0.40,
    "parallax_1_5": 0.40,
    "parallax_3": 0.70,
}
FAMILIES: dict[str, str] = {
    "fixed": r"fixed_\d+|every_frame",
    "fixed_tracker": r"fixed_tracker_\d+|every_frame",
    "fixed_tracker_cmc": r"fixed_tracker_cmc_\d+|every_frame",
    "mog2": r"mog2|mog2_area_x\d+",
    "running_average_a": r"running_average_a",
    "running_average_b": r"running_average_b",
    "running_average_c": r"running_average_c",
}
"""Baselines that differ in one setting form a curve over the share of inferred frames. Name -> pattern."""

Methods = Mapping[str, Mapping[str, Any]]


def family_curve(methods: Methods, family: str, metric: str) -> list[tuple[float, float]]:
    """(inferred_share, value) of a family's members that have the metric, ordered by the share."""
    members = (values for name, values in methods.items() if re.fullmatch(FAMILIES[family], name))
    return sorted(
        (values["inferred_share"], values[metric]) for values in members if values[metric] is not None
    )


def at_share(curve: list[tuple[float, float]], share: float) -> float | None:
    """A family's value at a share of inferred frames, interpolated linearly.

    Below its lowest share: None. Above its highest share it keeps the value of that member.
    """
    if not curve or share < curve[0][0] - 1e-12:
        return None
    x, y = zip(*curve, strict=True)
    return float(np.interp(share, x, y))


def best_baseline(methods: Methods, metric: str, share: float) -> tuple[str, float] | None:
    """The family with the best value of a metric at a share of inferred frames, and that value.

    If even the longest fixed interval infers more frames, it takes part with that value, in its favour.
    """
    values = {}
    for family in FAMILIES:
        curve = family_curve(methods, family, metric)
        value = at_share(curve, share)
        if value is None and curve and family.startswith("fixed"):
            value = curve[0][1]
        if value is not None:
            values[family] = value
    if not values:
        return None
    name = BETTER[BY_NAME[metric].better](values, key=lambda family: values[family])
    return name, values[name]


def verdict(
    kind: str, methods: Methods, gate: str, config: GateConfig, period_ms: float
) -> dict[str, TargetCheck]:
    """Each target of a gate, by metric."""
    ours = methods[gate]
    share = ours["inferred_share"]
    delay = best_baseline(methods, "delay_ms_p95", share)
    f1 = best_baseline(methods, "frame_f1", share)
    max_delay_ms = delay[1] * MAX_DELAY_RATIO if delay else None
    gap_ms = config.max_blind_ms + period_ms + _ROUNDING_MS
    return {
        "recall_100ms": check(ours["recall_100ms"], MIN_RECALL, at_least),
        "delay_ms_p95": check(ours["delay_ms_p95"], max_delay_ms, at_most, delay),
        "frame_f1": check(ours["frame_f1"], f1[1] if f1 else None, at_least, f1),
        "inferred_share": check(share, MAX_INFERRED_SHARE.get(kind), at_most),
        "worst_gap_ms": check(ours["worst_gap_ms"], gap_ms, at_most),
    }


def headline(conditions: Mapping[str, Mapping[str, Any]]) -> str:
    """How often our gate meets its targets, in one line."""
    if not conditions:
        return "nothing was evaluated"
    checks = [condition["verdict"]["gate"] for condition in conditions.values()]
    events = sum(condition["events"] for condition in conditions.values())
    constructed = sum(bool(condition["constructed"]) for condition in conditions.values())
    met = {name: "{}/{}".format(*count_met(checks, name)) for name in checks[0]}
    return (
        f"{events} events in {len(checks)} conditions ({constructed} constructed): recall within 100 ms "
        f">= 99 % in {met['recall_100ms']}, p95 delay <= 1/3 of the best baseline's at an equal share of "
        f"inferred frames in {met['delay_ms_p95']}, frame F1 no worse in {met['frame_f1']}, inferred share "
        f"within its target in {met['inferred_share']}, worst gap within max_blind_ms in "
        f"{met['worst_gap_ms']}"
    )
