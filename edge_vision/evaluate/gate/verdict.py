"""Whether a gate shows what it must: against fixed targets, and against the best rival at equal calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edge_vision.gate.frame_gate import GateConfig

RECALL = 0.99
DELAY_SHARE = 1 / 3
F1_SLACK = 1e-9
_ROUNDING_MS = 0.001
MOST_CALLS = {
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
"""Rivals that differ in one setting form a curve over the share of calls."""

Methods = Mapping[str, Mapping[str, Any]]


def family_curve(methods: Methods, family: str, figure: str) -> list[tuple[float, float]]:
    """(calls_share, figure) of a family's members that have the figure, in order of the share."""
    members = (values for name, values in methods.items() if re.fullmatch(FAMILIES[family], name))
    return sorted((values["calls_share"], values[figure]) for values in members if values[figure] is not None)


def at_calls(curve: list[tuple[float, float]], share: float) -> float | None:
    """The figure that a family has at this share of calls, between its members by a straight line.

    Below the share of its most frugal member it is not to be had: None. Above that of its most generous one
    it keeps that one's figure.
    """
    if not curve or share < curve[0][0] - 1e-12:
        return None
    x, y = zip(*curve, strict=True)
    return float(np.interp(share, x, y))


def best_rival(
    methods: Methods, figure: str, share: float, better: Callable[..., Any]
) -> tuple[str, float] | None:
    """The family that is best in a figure at a share of calls, and its value; better: min or max.

    Where even the most frugal fixed interval makes more calls than the gate, it stands with the calls it
    makes: that is to its favour.
    """
    found = {}
    for family in FAMILIES:
        curve = family_curve(methods, family, figure)
        value = at_calls(curve, share)
        if value is None and curve and family.startswith("fixed"):
            value = curve[0][1]
        if value is not None:
            found[family] = value
    if not found:
        return None
    name = better(found, key=lambda family: found[family])
    return name, found[name]


def verdict(kind: str, methods: Methods, gate: str, config: GateConfig, period_ms: float) -> dict[str, Any]:
    """Each target with its value, its limit and whether it is met; None where it cannot be said."""
    mine = methods[gate]
    share = mine["calls_share"]
    delay = best_rival(methods, "delay_ms_p95", share, min)
    f1 = best_rival(methods, "frame_f1", share, max)
    slack_ms = period_ms + _ROUNDING_MS
    gap_ms = mine["worst_gap_ms"], config.max_blind_ms + slack_ms
    moving_gap_ms = mine["worst_gap_moving_ms"], config.max_blind_moving_ms + slack_ms
    return {
        "recall_100ms": check(mine["recall_100ms"], RECALL, lambda value, limit: value >= limit),
        "delay_ms_p95": check(
            mine["delay_ms_p95"],
            delay[1] * DELAY_SHARE if delay else None,
            lambda value, limit: value <= limit,
        )
        | {"rival": delay},
        "frame_f1": check(
            mine["frame_f1"], f1[1] if f1 else None, lambda value, limit: value >= limit - F1_SLACK
        )
        | {"rival": f1},
        "calls_share": check(share, MOST_CALLS.get(kind), lambda value, limit: value <= limit),
        "worst_gap_ms": check(*gap_ms, lambda value, limit: value <= limit),
        "worst_gap_moving_ms": check(*moving_gap_ms, lambda value, limit: value <= limit),
    }


def check(value: float | None, limit: float | None, met: Callable[[float, float], bool]) -> dict[str, Any]:
    """A value, its limit, and whether it is met: None where one of them is not known."""
    known = None if value is None or limit is None else bool(met(value, limit))
    return {"value": value, "limit": limit, "met": known}
