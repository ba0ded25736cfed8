"""CPU savings of a chain: against the every-frame detector, and against fixed intervals with a tracker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from edge_vision.evaluate.gate.verdict import MIN_RECALL
from edge_vision.evaluate.metrics.builtin import BETTER, BY_NAME
from edge_vision.evaluate.results import TargetCheck, at_least, at_most, check, count_met

BASELINES = ("fixed_interval_tracker", "fixed_interval_tracker_still")
"""A tracker with camera motion, whose cost counts, and one without, which a standing camera does not need."""
GROUPS = {
    "long quiet": ("long_quiet",),
    "moving": ("pan_tilt", "drive_zoom", "shake", "hard_cuts", "night", "pan_reveals"),
    "parallax": ("parallax_1_5", "parallax_3"),
    "busy": ("vtest",),
    "standing": ("static", "light_steps", "low_light_noise"),
}
OTHER = "other"
MIN_TIMES_CHEAPER = {"long quiet": 10.0, "moving": 2.5, "parallax": 1.4, "busy": 2.0}
"""Targets: CPU of the every-frame detector divided by that of the whole chain, per group."""
MIN_F1 = 0.9
MIN_F1_LONG_QUIET = 0.95

Entry = Mapping[str, Any]
Sweep = Mapping[str, Sequence[Entry]]
"""Baseline -> one entry per interval."""


def group_of(kind: str) -> str:
    """The group of conditions that share a target."""
    return next((group for group, kinds in GROUPS.items() if kind in kinds), OTHER)


def min_f1(kind: str) -> float:
    """The minimum frame F1 of a chain."""
    return MIN_F1_LONG_QUIET if group_of(kind) == "long quiet" else MIN_F1


def baseline_at_recall(kind: str, sweep: Sweep, chain: Entry) -> dict[str, Any]:
    """The cheapest fixed interval whose recall is no lower than the chain's and whose F1 is sufficient.

    The interval of one frame always qualifies.
    """
    min_recall = chain["recall_100ms"] or 0.0
    sufficient = [
        {**entry, "baseline": name}
        for name, entries in sweep.items()
        for entry in entries
        if (entry["recall_100ms"] is None or entry["recall_100ms"] >= min_recall)
        and (entry["frame_f1"] is None or entry["frame_f1"] >= min_f1(kind))
    ]
    return min(sufficient, key=lambda entry: float(entry["cpu_s_per_1000"]))


def at_cost(entries: Sequence[Entry], metric: str, cpu_s_per_1000: float) -> float | None:
    """A baseline's value of a metric at a cost, interpolated linearly between its intervals.

    Below the cost of its longest interval it keeps the value of that one, in its favour.
    """
    curve = sorted((one["cpu_s_per_1000"], one[metric]) for one in entries if one[metric] is not None)
    if not curve:
        return None
    costs, values = zip(*curve, strict=True)
    return float(np.interp(cpu_s_per_1000, costs, values))


def best_at_cost(sweep: Sweep, metric: str, cpu_s_per_1000: float) -> float | None:
    """The best value of the baselines at a cost."""
    values = [at_cost(entries, metric, cpu_s_per_1000) for entries in sweep.values()]
    known = [value for value in values if value is not None]
    return BETTER[BY_NAME[metric].better](known) if known else None


def checks(kind: str, chains: Mapping[str, Entry], sweep: Sweep) -> dict[str, TargetCheck]:
    """Each target of the whole chain."""
    full, every = chains["full"], chains["every_frame"]
    cost = full["cpu_s_per_1000"]
    recall, delay, f1 = (
        best_at_cost(sweep, metric, cost) for metric in ("recall_100ms", "delay_ms_p95", "frame_f1")
    )
    min_times = MIN_TIMES_CHEAPER.get(group_of(kind))
    return {
        "recall_100ms": check(full["recall_100ms"], MIN_RECALL, at_least),
        "frame_f1": check(full["frame_f1"], min_f1(kind), at_least),
        "times_cheaper": check(every["cpu_s_per_1000"] / cost, min_times, at_least),
        "recall_at_equal_cost": check(full["recall_100ms"], recall, at_least),
        "delay_at_equal_cost": check(full["delay_ms_p95"], delay, at_most),
        "f1_at_equal_cost": check(full["frame_f1"], f1, at_least),
    }


def times_cheaper(condition: Entry, chain: str) -> float:
    """CPU of the every-frame detector divided by that of a chain."""
    chains = condition["chains"]
    return float(chains["every_frame"]["cpu_s_per_1000"] / chains[chain]["cpu_s_per_1000"])


def headline(conditions: Mapping[str, Entry]) -> str:
    """Savings at equal recall, in one line: medians over the conditions of a group."""
    if not conditions:
        return "nothing was evaluated"
    groups = []
    for group in GROUPS:
        members = [one for one in conditions.values() if group_of(one["kind"]) == group]
        if members:
            ours, baseline = (
                median(times_cheaper(one, chain) for one in members)
                for chain in ("full", "fixed_interval_tracker")
            )
            groups.append(f"{group} {ours:.1f}x ({baseline:.1f}x)")
    met, known = count_met([one["checks"] for one in conditions.values()], "recall_100ms")
    return (
        "CPU saved by the whole chain against the detector on every frame (in brackets: fixed interval + "
        f"tracker at that recall): {', '.join(groups) or 'no condition with a target'}; "
        f"recall within 100 ms >= 99 % in {met} of {known} conditions"
    )
