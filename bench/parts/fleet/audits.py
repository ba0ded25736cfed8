"""False and true alarms of the gate's audit in a fleet."""

from __future__ import annotations

from typing import Any

import numpy as np
from parts.fleet.rollouts import DAY_S, HOUR_S

from edge_vision.core.confidence_intervals import anytime_exceeds
from edge_vision.gate.audit import EPOCH_FRAMES

MAX_MISS_RATE, AUDITS_HZ = 0.2, 0.1
"""audit_rate 0.01 of a camera at 10 Hz, while nearly all frames are skipped."""
RATES = (0.05, 0.1, 0.15, 0.2, 0.3)


def audits(robots: int, seed: int) -> dict[str, Any]:
    """Share of epochs in which a robot reports a miss rate above the limit, by its true rate; alarms a day;
    and the frames until a rise from 0.05 to 0.1 is certain, on one robot and pooled over a stage of 1 %."""
    rng = np.random.default_rng([seed, 11])
    least = least_missed(EPOCH_FRAMES, MAX_MISS_RATE)
    found: dict[str, Any] = {"opens": {}, "alarms_per_day": {}}
    epochs_per_day = DAY_S * AUDITS_HZ / EPOCH_FRAMES
    for rate in RATES:
        missed = np.cumsum(rng.random((robots, EPOCH_FRAMES), np.float32) < rate, axis=1)
        share = float((missed >= least).any(axis=1).mean())
        found["opens"][rate] = share
        found["alarms_per_day"][rate] = share * robots * epochs_per_day
    frames = 20_000
    above = least_missed(frames, 0.075)
    paths = np.cumsum(rng.random((200, frames), np.float32) < 0.1, axis=1) >= above
    certain = float(np.median(np.where(paths.any(axis=1), paths.argmax(axis=1), frames)))
    found["rise_frames"] = certain
    found["rise_h_one"] = certain / AUDITS_HZ / HOUR_S
    found["rise_s_pooled"] = certain / AUDITS_HZ / (robots / 100)
    print(f"audits: {found}", flush=True)
    return found


def least_missed(frames: int, rate: float) -> np.ndarray:
    """(frames,) the least number of misses at which the audit's bound exceeds a rate, after each frame."""
    least, missed = np.zeros(frames, np.int64), 0
    for n in range(1, frames + 1):
        while missed <= n and not anytime_exceeds(missed, n, rate):
            missed += 1
        least[n - 1] = missed
    return least
