"""Simulated roll-outs of a release to a fleet, and its checks after a power cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from edge_vision.bundles.store import load_bundle
from edge_vision.updates.release import Release
from edge_vision.updates.robot_report import (
    GOOD,
    HALTING_ROLLBACKS,
    RolloutSummary,
    check_share,
)
from edge_vision.updates.transport import TransferLimits

MODEL = "ssdlite_mobilenet_v2_coco"
HOUR_S, DAY_S = 3600.0, 86_400.0
CHECK_S, TIMER_S = HOUR_S, 300.0
PROBATION_S = (120.0, 600.0)
STAGES = ((0.0, 1), (24 * HOUR_S, 10), (48 * HOUR_S, 100))
ALL_AT_ONCE = ((0.0, 100),)
MAX_BAD_PERCENT = 5.0
OFF_SHARE = 0.1
SEEDS = 20


@dataclass(frozen=True, slots=True)
class Rollout:
    """times_s: of each install, sorted. halted_s: None if it was not. bad: robots that rolled it back."""

    times_s: np.ndarray
    halted_s: float | None
    bad: int


def rollout(
    robots: int,
    seed: int,
    bad_share: float,
    stages: Sequence[tuple[float, int]],
    download_s: float,
    at_least: int = HALTING_ROLLBACKS,
) -> Rollout:
    """One release. bad_share: of the robots that roll it back. at_least: rollbacks that halt it."""
    rng = np.random.default_rng([seed, 7])
    phase_s = rng.uniform(0, CHECK_S, robots)
    opens_s = np.full(robots, np.inf)
    release = Release("yard", "2.0.0", "stable", seed, 0, "0.0.0", "", ("bundle.yaml",))
    for start_s, percent in reversed(stages):
        stage = replace(release, percent=percent)
        included = np.array([stage.includes(f"robot{number}") for number in range(robots)])
        opens_s[included] = start_s
    checks_s = phase_s + np.ceil(np.maximum(0.0, opens_s - phase_s) / CHECK_S) * CHECK_S
    # Switched off for half of a day, from a random hour on: the first check after that.
    off = rng.random(robots) < OFF_SHARE
    since_off_s = (checks_s - rng.uniform(0, DAY_S, robots)) % DAY_S
    checks_s = np.where(off & (since_off_s < DAY_S / 2), checks_s + DAY_S / 2 - since_off_s, checks_s)
    ends_s = checks_s + download_s + rng.uniform(*PROBATION_S, robots)
    is_bad = rng.random(robots) < bad_share
    halted_s = _halted_s(ends_s, is_bad, at_least)
    installs = checks_s <= (np.inf if halted_s is None else halted_s)
    return Rollout(np.sort(checks_s[installs]), halted_s, int(is_bad[installs].sum()))


def _halted_s(ends_s: np.ndarray, is_bad: np.ndarray, at_least: int) -> float | None:
    """When the operator's timer first finds too many rollbacks, and so many, among the reports."""
    order = np.argsort(ends_s)
    ends_s, bad = ends_s[order], np.cumsum(is_bad[order])
    for tick_s in np.arange(TIMER_S, ends_s[-1] + TIMER_S, TIMER_S):
        done = int(np.searchsorted(ends_s, tick_s, "right"))
        if done:
            outcomes = {GOOD: done - int(bad[done - 1]), "rolled_back": int(bad[done - 1])}
            if RolloutSummary(outcomes, {}).exceeds(MAX_BAD_PERCENT, at_least):
                return float(tick_s)
    return None


def rollouts(robots: int, seed: int) -> dict[str, Any]:
    """Medians over SEEDS releases; curve: of a good one."""
    size = sum(path.stat().st_size for path in load_bundle(MODEL).folder.iterdir())
    download_s = size / TransferLimits().max_bytes_per_s
    found: dict[str, Any] = {"release_bytes": size}
    good = rollout(robots, seed, 0.0, STAGES, download_s)
    found["curve_h"] = [float(np.quantile(good.times_s, share)) / HOUR_S for share in np.linspace(0, 1, 1001)]
    found["all_h"] = float(good.times_s[-1]) / HOUR_S
    least = HALTING_ROLLBACKS
    for name, stages, at_least in (
        ("stages", STAGES, least),
        ("at_once", ALL_AT_ONCE, least),
        ("stages_first", STAGES, 1),
    ):
        found[name] = {}
        for bad_share in (0.01, 0.06, 0.1, 0.33, 1.0):
            runs = [rollout(robots, seed + n, bad_share, stages, download_s, at_least) for n in range(SEEDS)]
            halted = [one for one in runs if one.halted_s is not None]
            found[name][str(bad_share)] = {
                "halted": len(halted) / SEEDS,
                "halted_h": median([one.halted_s / HOUR_S for one in halted]) if halted else None,  # type: ignore[operator]
                "installs": median(len(one.times_s) for one in runs),
                "bad": median(one.bad for one in runs),
            }
            print(f"{name}, {bad_share:.0%} roll back: {found[name][str(bad_share)]}", flush=True)
    return found


def power_cut(robots: int, seed: int) -> dict[str, list[int]]:
    """The most checks within a second in each hour after all robots have started within a minute: as they are
    spread by their id, and with a fixed period."""
    starts_s = np.random.default_rng([seed, 13]).uniform(0, 60, robots)
    shares = np.array([check_share(f"robot{number}") for number in range(robots)])
    found = {}
    for name, second_s in (("spread", shares * CHECK_S), ("fixed", np.full(robots, CHECK_S))):
        checks_s = [starts_s, *(starts_s + second_s + n * CHECK_S for n in range(5))]
        per_second = np.bincount(np.concatenate(checks_s).astype(int), minlength=5 * int(CHECK_S))
        hours = per_second[60 : 60 + 4 * int(CHECK_S)].reshape(4, -1)
        found[name] = [int(per_second[:60].max()), *hours.max(axis=1).tolist()]
    print(f"after a power cut: {found}", flush=True)
    return found
