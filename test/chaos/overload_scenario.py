"""Sustained overload: `make soak`, with its figures as checks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from chaos_run import TEST, Abandoned, ChaosRun, street_clip

sys.path.append(str(TEST.parent / "bench"))

import soak

MIN_LOAD_FACTOR = 1.5
"""Received frames per inferred frame. Twice the capacity is offered; other programs change the capacity."""
MAX_RSS_SLOPE_MB_PER_H = 6.0
MAX_RSS_GROWTH_MB = 8.0
MAX_AGE_GROWTH = 0.5
"""In service times: a queue that grows by one frame adds 1."""
MIN_SLOPE_S = 600.0
"""For a shorter run, only the growth of the memory is checked: its caches still fill up."""
SHORT_RATE, SHORT_S = 50.0, 4.0
"""Speed of the clip, 500 Hz, and duration."""


def overload(run: ChaosRun) -> None:
    """A camera at twice the detector's capacity, sampled once per second."""
    clip = Path(street_clip())
    try:
        if run.short:
            played = soak.play(clip, SHORT_RATE, SHORT_S, "overload")
            found = soak.figures(*played, warm_up_s=0.0)
        else:
            found = soak.soak(clip, run.seconds / 60.0)
    except SystemExit as error:
        run.check("the pipeline runs until it is stopped", "detections", str(error), False)
        raise Abandoned from None
    run.summary |= found
    _check_accounting(run, found)
    if not run.short:
        _check_growth(run, found)


def _check_accounting(run: ChaosRun, found: dict[str, Any]) -> None:
    factor, failed = found["load_factor"], {k for k in found["reasons"] if k.startswith("failed.")}
    run.check(
        "received / inferred frames", f">= {MIN_LOAD_FACTOR}", f"{factor:.2f}", factor >= MIN_LOAD_FACTOR
    )
    wrong, samples = found["ledgers_out_of_balance"], found["ledgers"]
    run.check("ledgers out of balance", f"0 of {samples}", f"{wrong} of {samples}")
    # A frame that is in transit when the pipeline is stopped.
    unknown = sorted(failed - {"failed.deactivated", "failed.detector_inactive", "failed.cascade_inactive"})
    run.check("failed frames, except at the stop", "[]", str(unknown))


def _check_growth(run: ChaosRun, found: dict[str, Any]) -> None:
    growth_mb = found["rss_growth_kb"] / 1024
    _at_most(run, "growth of the memory after the first fifth, MB", growth_mb, MAX_RSS_GROWTH_MB)
    if found["measured_s"] >= MIN_SLOPE_S:
        slope = found["rss_slope_kb_per_min"] * 60 / 1024
        _at_most(run, "slope of the memory after the first fifth, MB/h", slope, MAX_RSS_SLOPE_MB_PER_H)
    _at_most(run, "slope of the open files, 1/min", found["fd_slope_per_min"], 0)
    _at_most(run, "growth of the open files", found["fd_growth"], 0)
    _at_most(run, "growth of the threads", found["thread_growth"], 0)
    _at_most(run, "growth of the age, service times", found["age_growth_services"], MAX_AGE_GROWTH)


def _at_most(run: ChaosRun, name: str, value: float, limit: float) -> None:
    run.check(name, f"<= {limit:g}", f"{value:.3g}", value <= limit)
