"""Whether the presets meet their targets, from the figures of all real clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from edge_vision.evaluate.results import at_least, at_most
from edge_vision.evaluate.schedule.schedule_run import FIRST_PRESET, rival

Clip = Mapping[str, Any]
Clips = Mapping[str, Clip]
Figure = Callable[[Clip], float | None]
"""A figure of a clip, None where there is none."""
Check = Callable[[float, float], bool]
PROCESS_CPU = "process_cpu_s_per_1000"
MAX_PROCESS_SHARE = 1.0
MAX_OVER_RIVAL = 1.1
MAX_CPU_SHARE = {"balanced": {">=24": 0.38, "8..16": 0.5}, "economy": {">=24": 0.30, "8..16": 0.5}}
"""Preset -> frame rates -> median share of the single-thread CPU."""
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
        found += _medians(real, preset)
        found += [_each(real, preset, *one) for one in _on_every_clip(preset, settings["min_fidelity"])]
        found += [_above_even(real, preset), _recall(real, preset)]
    return [asdict(one) for one in [*found, _held(real), *_live(real)]]


def _on_every_clip(preset: str, min_fidelity: float) -> Iterator[tuple[str, Figure, Check, float]]:
    """(text, figure, check, limit) of each target that every clip must meet."""
    promise = rival("same_promise", preset)
    for other, limit in (("every_frame", MAX_PROCESS_SHARE), (promise, MAX_OVER_RIVAL)):
        ratio = _compared(preset, other, PROCESS_CPU, lambda a, b: a / b)
        yield f"process CPU <= {limit:.2f} of {other}'s on every clip", ratio, at_most, limit
    quiet = _of(preset, "quiet_cpu_share")
    yield f"CPU share on quiet stretches <= {MAX_QUIET_SHARE:.1f}", quiet, at_most, MAX_QUIET_SHARE
    text = f"frame F1 below even spacing by > {MAX_BELOW_EVEN} on no clip"
    yield text, _gain(preset), at_least, -MAX_BELOW_EVEN
    lead = _compared(preset, promise, "recall_max_delay", lambda a, b: a - b)
    yield f"recall >= {promise}'s on every clip", lead, at_least, 0.0
    fidelity = _of(preset, "fidelity")
    yield f"fidelity >= {min_fidelity:g} on every clip", fidelity, at_least, min_fidelity
    yield "ghosts after cuts: 0", _of(preset, "ghosts"), at_most, 0.0
    yield "the audit opens alike for all seeds", lambda clip: _spread(clip, preset), at_most, 0.0


def _of(chain: str, key: str) -> Figure:
    return lambda clip: clip["chains"][chain][key]


def _compared(chain: str, other: str, key: str, how: Callable[[float, float], float]) -> Figure:
    """A figure of two chains compared, where both have it."""

    def figure(clip: Clip) -> float | None:
        a, b = clip["chains"][chain][key], clip["chains"][other][key]
        return None if a is None or b is None else how(a, b)

    return figure


def _gain(preset: str) -> Figure:
    """Frame F1 above that of even spacing."""

    def figure(clip: Clip) -> float | None:
        f1, even = (clip["chains"][preset][key] for key in ("frame_f1", "even_spacing_f1"))
        return None if f1 is None or even is None else f1 - even

    return figure


def _spread(clip: Clip, preset: str) -> float | None:
    """Difference of the frames that the audit opened between seeds; None with a single seed."""
    frames = clip["chains"][preset]["seeds"]["audit_open_frames"]
    return float(max(frames) - min(frames)) if len(frames) > 1 else None


def _each(clips: Clips, preset: str, text: str, figure: Figure, met: Check, limit: float) -> Target:
    """A target that each clip with the figure must meet. Shows the worst one, and how many miss it."""
    found = {name: value for name, clip in clips.items() if (value := figure(clip)) is not None}
    if not found:
        return Target(preset, text, None, "not measured")
    worst = (max if met is at_most else min)(found, key=lambda name: found[name])
    missed = sum(not met(value, limit) for value in found.values())
    count = f"; missed on {missed} of {len(found)}" if missed else ""
    return Target(preset, text, not missed, f"worst {found[worst]:.3f} ({worst}){count}")


def _medians(clips: Clips, preset: str) -> Iterator[Target]:
    for rates, limit in MAX_CPU_SHARE[preset].items():
        shares = [one["chains"][preset]["cpu_share"] for one in clips.values() if one["fps_class"] == rates]
        met = at_most(median(shares), limit) if shares else None
        value = f"{median(shares):.3f} of {len(shares)} clips" if shares else "no clip"
        yield Target(preset, f"median CPU share at {rates} fps <= {limit:.2f}", met, value)


def _above_even(clips: Clips, preset: str) -> Target:
    gains = [gain for gain in map(_gain(preset), clips.values()) if gain is not None]
    above = sum(gain > 0.0 for gain in gains)
    met = above >= MIN_CLIPS_ABOVE_EVEN if len(gains) >= MIN_CLIPS_ABOVE_EVEN else None
    text = f"frame F1 above even spacing at an equal share on >= {MIN_CLIPS_ABOVE_EVEN} clips"
    return Target(preset, text, met, f"{above} of {len(gains)}")


def _recall(clips: Clips, preset: str) -> Target:
    """Recall within the promised delay, pooled over all events: most clips have few."""
    counted = {name: clip for name, clip in clips.items() if clip["events"]}
    recalls = {name: clip["chains"][preset]["recall_max_delay"] for name, clip in counted.items()}
    events = sum(clip["events"] for clip in counted.values())
    hits = sum(round(recall * counted[name]["events"]) for name, recall in recalls.items())
    late = [name for name, recall in recalls.items() if recall < 1.0]
    value = f"{hits} of {events} events" + (f"; late on {', '.join(late)}" if late else "")
    met = at_least(hits / events, MIN_RECALL) if events else None
    return Target(preset, f"recall within max_delay_ms >= {MIN_RECALL:.0%}, all events", met, value)


def _held(clips: Clips) -> Target:
    pairs = {f"{name} N={n}": one for name, clip in clips.items() for n, one in clip["held_boxes"].items()}
    text = "tracks at least as good as held boxes on every clip and N"
    return _each(
        pairs,
        "",
        text,
        lambda one: None if one["held"] is None else one["tracks"] - one["held"],
        at_least,
        0.0,
    )


def _live(clips: Clips) -> Iterator[Target]:
    played = {
        f"{name} {chain}": entry
        for name, clip in clips.items()
        for chain, entry in clip["chains"].items()
        if entry.get("live") and entry["frame_f1"] is not None
    }
    n_clips = len({name.partition(" ")[0] for name in played})
    text = f"live frame F1 within {MAX_LIVE_DIFFERENCE} of the simulation on >= {MIN_LIVE_CLIPS} clips"
    one = _each(
        played,
        "",
        text,
        lambda entry: abs(entry["live"]["frame_f1"] - entry["frame_f1"]),
        at_most,
        MAX_LIVE_DIFFERENCE,
    )
    met = one.met and n_clips >= MIN_LIVE_CLIPS if played else None
    yield Target("", text, met, f"{n_clips} clips; {one.value}")
    cheaper = _compared("every_frame", FIRST_PRESET, PROCESS_CPU, lambda a, b: a / b)
    text = f"vtest live: process CPU divided by >= {VTEST_TIMES_CHEAPER}"
    vtest = {name: clip for name, clip in clips.items() if name == "vtest"}
    yield _each(vtest, FIRST_PRESET, text, cheaper, at_least, VTEST_TIMES_CHEAPER)
