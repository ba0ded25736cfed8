"""Whether the presets meet their targets, from the figures of all real clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from edge_vision.evaluate.results import at_least, at_most
from edge_vision.evaluate.schedule.schedule_run import FIRST_PRESET, rival

Clips = Mapping[str, Mapping[str, Any]]
Worst = tuple[str, float]
"""(clip, value)"""
PROCESS_CPU = "process_cpu_s_per_1000"
MAX_PROCESS_SHARE = 1.0
MAX_OVER_RIVAL = 1.1
MAX_CPU_SHARE = {">=24": {"balanced": 0.38, "economy": 0.30}, "8..16": {"balanced": 0.5, "economy": 0.5}}
"""Frame rates -> preset -> median share of the single-thread CPU."""
MAX_QUIET_SHARE = 0.1
MIN_CLIPS_ABOVE_EVEN, MAX_BELOW_EVEN = 10, 0.005
MIN_RECALL = 0.99
MIN_LIVE_CLIPS, MAX_LIVE_DIFFERENCE = 4, 0.02
VTEST_TIMES_CHEAPER = 1.65


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the verdict. met: None if it was not measured. value: the figures, as text."""

    preset: str
    text: str
    met: bool | None
    value: str


def verdict(clips: Clips, presets: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All targets on the real clips. presets: name -> settings of the gate."""
    real = {name: clip for name, clip in clips.items() if not clip["constructed"]}
    found: list[Target] = []
    for preset, settings in presets.items():
        found += _costs(real, preset)
        found += _quality(real, preset, settings["min_fidelity"])
    return [asdict(one) for one in [*found, _held(real), *_live(real, presets)]]


def _costs(clips: Clips, preset: str) -> Iterator[Target]:
    for other, limit in (("every_frame", MAX_PROCESS_SHARE), (rival("same_promise", preset), MAX_OVER_RIVAL)):
        ratios = _ratios(clips, preset, other, PROCESS_CPU)
        yield _each(preset, f"process CPU <= {limit:.2f} of {other}'s on every clip", ratios, at_most, limit)
    for rates, limits in MAX_CPU_SHARE.items():
        shares = [
            clip["chains"][preset]["cpu_share"] for clip in clips.values() if clip["fps_class"] == rates
        ]
        limit = limits.get(preset, max(limits.values()))
        met = at_most(median(shares), limit) if shares else None
        value = f"{median(shares):.3f} of {len(shares)} clips" if shares else "no clip"
        yield Target(preset, f"median CPU share at {rates} fps <= {limit:.2f}", met, value)
    quiet = _values(clips, lambda clip: clip["chains"][preset]["quiet_cpu_share"])
    text = f"CPU share on quiet stretches <= {MAX_QUIET_SHARE:.1f}"
    yield _each(preset, text, quiet, at_most, MAX_QUIET_SHARE)


def _quality(clips: Clips, preset: str, min_fidelity: float) -> Iterator[Target]:
    chain = _of(preset)
    gains = _values(clips, lambda clip: _difference(chain(clip), "frame_f1", "even_spacing_f1"))
    above = sum(gain > 0.0 for _, gain in gains)
    text = f"frame F1 above even spacing at an equal share on >= {MIN_CLIPS_ABOVE_EVEN} clips"
    met = above >= MIN_CLIPS_ABOVE_EVEN if len(gains) >= MIN_CLIPS_ABOVE_EVEN else None
    yield Target(preset, text, met, f"{above} of {len(gains)}")
    text = f"frame F1 below even spacing by > {MAX_BELOW_EVEN} on no clip"
    yield _each(preset, text, gains, at_least, -MAX_BELOW_EVEN)
    yield _recall(clips, preset)
    lead = _values(clips, lambda clip: _recall_lead(clip, preset))
    yield _each(preset, f"recall >= {rival('same_promise', preset)}'s on every clip", lead, at_least, 0.0)
    fidelity = _values(clips, lambda clip: chain(clip)["fidelity"])
    yield _each(preset, f"fidelity >= {min_fidelity:g} on every clip", fidelity, at_least, min_fidelity)
    ghosts = _values(clips, lambda clip: chain(clip)["ghosts"])
    yield _each(preset, "ghosts after cuts: 0", ghosts, at_most, 0.0)
    regimes = _values(clips, lambda clip: _spread(chain(clip)["seeds"]["audit_open_frames"]))
    yield _each(preset, "the audit opens alike for all seeds", regimes, at_most, 0.0)


def _recall(clips: Clips, preset: str) -> Target:
    """Recall within the promised delay, pooled over all events: most clips have few."""
    counted = [clip for clip in clips.values() if clip["events"]]
    events = sum(clip["events"] for clip in counted)
    hits = sum(round(clip["chains"][preset]["recall_max_delay"] * clip["events"]) for clip in counted)
    met = at_least(hits / events, MIN_RECALL) if events else None
    late = [name for name, clip in clips.items() if (clip["chains"][preset]["recall_max_delay"] or 1.0) < 1.0]
    value = f"{hits} of {events} events" + (f"; late on {', '.join(late)}" if late else "")
    return Target(preset, f"recall within max_delay_ms >= {MIN_RECALL:.0%}, all events", met, value)


def _held(clips: Clips) -> Target:
    gains = [
        (f"{name} N={n}", one["tracks"] - one["held"])
        for name, clip in clips.items()
        for n, one in clip["held_boxes"].items()
        if one["held"] is not None
    ]
    return _each("", "tracks at least as good as held boxes on every clip and N", gains, at_least, 0.0)


def _live(clips: Clips, presets: Mapping[str, Any]) -> Iterator[Target]:
    live = [
        (f"{name} {chain}", entry["live"]["frame_f1"], entry["frame_f1"])
        for name, clip in clips.items()
        for chain, entry in clip["chains"].items()
        if entry.get("live")
    ]
    differences = [(name, abs(a - b)) for name, a, b in live if a is not None and b is not None]
    n_clips = len({name.partition(" ")[0] for name, _ in differences})
    text = f"live frame F1 within {MAX_LIVE_DIFFERENCE} of the simulation on >= {MIN_LIVE_CLIPS} clips"
    one = _each("", text, differences, at_most, MAX_LIVE_DIFFERENCE)
    met = one.met and n_clips >= MIN_LIVE_CLIPS if differences else None
    yield Target("", text, met, f"{n_clips} clips; {one.value}")
    if "vtest" in clips and FIRST_PRESET in presets:
        cheaper = _ratios({"vtest": clips["vtest"]}, "every_frame", FIRST_PRESET, PROCESS_CPU)
        text = f"vtest live: process CPU divided by >= {VTEST_TIMES_CHEAPER}"
        yield _each(FIRST_PRESET, text, cheaper, at_least, VTEST_TIMES_CHEAPER)


def _each(
    preset: str, text: str, values: Sequence[Worst], met: Callable[[float, float], bool], limit: float
) -> Target:
    """A target that each value must meet. Shows the worst one, and how many miss it."""
    if not values:
        return Target(preset, text, None, "not measured")
    worst = (max if met is at_most else min)(values, key=lambda pair: pair[1])
    missed = [name for name, value in values if not met(value, limit)]
    shown = f"worst {worst[1]:.3f} ({worst[0]})" + (
        f"; missed on {len(missed)} of {len(values)}" if missed else ""
    )
    return Target(preset, text, not missed, shown)


def _values(clips: Clips, value_of: Callable[[Mapping[str, Any]], float | None]) -> list[Worst]:
    """(clip, value) of the clips that have the value."""
    found = [(name, value_of(clip)) for name, clip in clips.items()]
    return [(name, value) for name, value in found if value is not None]


def _of(chain: str) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    return lambda clip: clip["chains"][chain]


def _ratios(clips: Clips, chain: str, other: str, key: str) -> list[Worst]:
    """(clip, ratio) of a figure of two chains, where both have it."""
    pairs = {name: (clip["chains"][chain][key], clip["chains"][other][key]) for name, clip in clips.items()}
    return [(name, a / b) for name, (a, b) in pairs.items() if a is not None and b]


def _difference(entry: Mapping[str, Any], key: str, other: str) -> float | None:
    a, b = entry[key], entry[other]
    return None if a is None or b is None else a - b


def _recall_lead(clip: Mapping[str, Any], preset: str) -> float | None:
    ours, theirs = (
        clip["chains"][chain]["recall_max_delay"] for chain in (preset, rival("same_promise", preset))
    )
    return None if ours is None or theirs is None else ours - theirs


def _spread(values: Sequence[int]) -> float | None:
    """Largest difference; None with a single seed."""
    return float(max(values) - min(values)) if len(values) > 1 else None
