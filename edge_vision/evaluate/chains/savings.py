"""What a chain saves: against the detector on every frame, and against fixed intervals with a tracker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edge_vision.evaluate.gate.verdict import F1_SLACK, RECALL, check

RIVALS = ("fixed_interval_tracker", "fixed_interval_tracker_still")
"""With the camera's motion, which it pays for; and without, as a camera that stands needs none."""
GROUPS = {
    "long quiet": ("long_quiet",),
    "moving": ("pan_tilt", "drive_zoom", "shake", "hard_cuts", "night", "pan_reveals"),
    "parallax": ("parallax_1_5", "parallax_3"),
    "busy": ("vtest",),
    "standing": ("static", "light_steps", "low_light_noise"),
}
OTHER = "other"
TIMES_CHEAPER = {"long quiet": 10.0, "moving": 2.5, "parallax": 1.4, "busy": 2.0}
"""How many times less CPU than the detector on every frame the whole chain must take."""
MIN_F1 = 0.9
MIN_F1_LONG_QUIET = 0.95

Figures = Mapping[str, Any]
Sweep = Mapping[str, Sequence[Figures]]


def group_of(kind: str) -> str:
    """The group of scenes that share a target."""
    return next((group for group, kinds in GROUPS.items() if kind in kinds), OTHER)


def min_f1(kind: str) -> float:
    """The least frame F1 that a chain must keep on a scene."""
    return MIN_F1_LONG_QUIET if group_of(kind) == "long quiet" else MIN_F1


def rival_at_recall(kind: str, sweep: Sweep, chain: Figures) -> dict[str, Any]:
    """The cheapest fixed interval whose recall is no less than the chain's and whose F1 is enough.

    There always is one: the interval of one frame.
    """
    least = chain["recall_100ms"] or 0.0
    good = [
        {**one, "rival": name}
        for name, one in _members(sweep)
        if (one["recall_100ms"] is None or one["recall_100ms"] >= least)
        and (one["frame_f1"] is None or one["frame_f1"] >= min_f1(kind))
    ]
    return min(good, key=lambda one: float(one["cpu_s_per_1000"]))


def _members(sweep: Sweep) -> Iterator[tuple[str, Figures]]:
    for name, members in sweep.items():
        for one in members:
            yield name, one


def at_cost(members: Sequence[Figures], figure: str, cpu_s_per_1000: float) -> float | None:
    """A rival's figure at a cost, by a straight line between two of its intervals.

    Below the cost of its most frugal interval it keeps that one's figure: that is to its favour.
    """
    curve = sorted((one["cpu_s_per_1000"], one[figure]) for one in members if one[figure] is not None)
    if not curve:
        return None
    costs, values = zip(*curve, strict=True)
    return float(np.interp(cpu_s_per_1000, costs, values))


def best_at_cost(
    sweep: Sweep, figure: str, cpu_s_per_1000: float, better: Callable[..., Any]
) -> float | None:
    """The better of the rivals at a cost; better: min or max."""
    found = [at_cost(members, figure, cpu_s_per_1000) for members in sweep.values()]
    return better((value for value in found if value is not None), default=None)


def checks(kind: str, chains: Mapping[str, Figures], sweep: Sweep) -> dict[str, Any]:
    """Each target of the whole chain with its value, its limit and whether it is met; None: unknown."""
    full, every = chains["full"], chains["every_frame"]
    cost = full["cpu_s_per_1000"]
    recall, delay, f1 = (
        best_at_cost(sweep, figure, cost, better)
        for figure, better in (("recall_100ms", max), ("delay_ms_p95", min), ("frame_f1", max))
    )
    return {
        "recall_100ms": check(full["recall_100ms"], RECALL, _at_least),
        "frame_f1": check(full["frame_f1"], min_f1(kind), _at_least),
        "times_cheaper": check(every["cpu_s_per_1000"] / cost, TIMES_CHEAPER.get(group_of(kind)), _at_least),
        "recall_at_equal_cost": check(full["recall_100ms"], recall, _at_least),
        "delay_at_equal_cost": check(full["delay_ms_p95"], delay, _at_most),
        "f1_at_equal_cost": check(full["frame_f1"], f1, _at_least),
    }


def _at_least(value: float, limit: float) -> bool:
    return value >= limit - F1_SLACK


def _at_most(value: float, limit: float) -> bool:
    return value <= limit + F1_SLACK
