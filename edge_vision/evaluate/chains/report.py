"""The report of the chains: lines on screen, the headline, report.json, tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from edge_vision.bundles.store import load_bundle
from edge_vision.core.printable import printable
from edge_vision.diagnostics.provenance import machine, versions
from edge_vision.evaluate.chains.savings import GROUPS, RIVALS, group_of
from edge_vision.evaluate.gate.report import data_hashes
from edge_vision.evaluate.reference.detector import BUNDLE

Scene = Mapping[str, Any]
CHAINS = {
    "every_frame": "every frame",
    "fixed_interval_tracker": "fixed interval + tracker at the recall of *full*",
    "gate": "gate",
    "gate_tracking": "gate, tracking",
    "gate_cascade": "gate, cascade",
    "full": "full",
}
COLUMNS = (
    f"{'scene':<24}{'events':>7}{'recall':>8}{'lower':>7}{'p95 ms':>8}{'F1':>7}{'runs':>7}"
    f"{'CPU s':>7}{'cheaper':>9}  {'rival at equal recall':<23}{'ids':>4}  verdict"
)
HEAD = (
    "| scene | events | recall in 100 ms (95 % lower) | delay p50, p95 | frame F1 | detector runs "
    "| CPU-s per 1000 | times cheaper | fixed interval + tracker at that recall "
    "| id switches (tracker on every frame) |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
)
CHAINS_HEAD = f"| scene | {' | '.join(CHAINS.values())} |\n| {' | '.join(['---'] * (len(CHAINS) + 1))} |\n"


def times_cheaper(scene: Scene, chain: str) -> float:
    """How many times less CPU a chain takes than the detector on every frame."""
    chains = scene["chains"]
    return float(chains["every_frame"]["cpu_s_per_1000"] / chains[chain]["cpu_s_per_1000"])


def screen_line(name: str, scene: Scene) -> str:
    """One line: the whole chain, and the rival at equal recall."""
    full = scene["chains"]["full"]
    lower = full["recall_100ms_lower95"]
    return (
        f"{name:<24}{scene['events']:>7}{_share(full['recall_100ms']):>8}{lower:>7.2f}"
        f"{_plain(full['delay_ms_p95']):>8}{_ratio(full['frame_f1']):>7}{_runs(scene, 'full'):>7}"
        f"{full['cpu_s_per_1000']:>7.2f}{times_cheaper(scene, 'full'):>8.1f}x  {_rival(scene):<23}"
        f"{_plain(full['id_switches']):>4}  {_failed(scene)}"
    )


def _rival(scene: Scene) -> str:
    interval = scene["chains"]["fixed_interval_tracker"]["interval_frames"]
    return f"{times_cheaper(scene, 'fixed_interval_tracker'):.1f}x (1 in {interval})"


def _runs(scene: Scene, chain: str) -> str:
    return f"{100 * scene['chains'][chain]['detector_runs'] / scene['frames']:.1f}%"


def _failed(scene: Scene) -> str:
    failed = [name for name, check in scene["checks"].items() if check["met"] is False]
    return "misses " + ", ".join(failed) if failed else "good"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def headline(scenes: Mapping[str, Scene]) -> str:
    """Cost at equal recall, in one line: medians over the scenes of a group."""
    if not scenes:
        return "nothing was evaluated"
    said = []
    for group in GROUPS:
        members = [scene for scene in scenes.values() if group_of(scene["kind"]) == group]
        if members:
            ours, rival = (_median(members, chain) for chain in ("full", "fixed_interval_tracker"))
            said.append(f"{group} {ours:.1f}x ({rival:.1f}x)")
    recalls = [scene["checks"]["recall_100ms"]["met"] for scene in scenes.values()]
    met = [one for one in recalls if one is not None]
    return (
        "cost at equal recall, the whole chain against the detector on every frame (in brackets: fixed "
        f"interval + tracker at that recall): {', '.join(said) or 'no scene with a target'} cheaper; "
        f"recall within 100 ms >= 99 % in {sum(met)} of {len(met)} scenes"
    )


def _median(scenes: list[Scene], chain: str) -> float:
    return median(times_cheaper(scene, chain) for scene in scenes)


def report(
    scenes: Mapping[str, Scene], job: Mapping[str, Any], complete: bool, seconds: float
) -> dict[str, Any]:
    """All that report.json holds. job: what was asked for."""
    return {
        "headline": headline(scenes),
        "complete": complete,
        **job,
        "scenes": dict(scenes),
        "hashes": {"model": load_bundle(BUNDLE).sha256, "data": data_hashes()},
        "machine": machine(),
        "versions": versions(),
        "seconds": round(seconds, 1),
    }


def markdown(scenes: Mapping[str, Scene]) -> str:
    """The whole chain on each scene, bold where it missed a target; then all chains: CPU seconds per 1000
    frames, share of frames that the detector saw, recall within 100 ms, frame F1."""
    rows = "".join(_row(printable(name), scene) for name, scene in scenes.items())
    chains = "".join(_chains_row(printable(name), scene) for name, scene in scenes.items())
    return f"{HEAD}{rows}\n{CHAINS_HEAD}{chains}"


def _row(name: str, scene: Scene) -> str:
    full, met = scene["chains"]["full"], {key: one["met"] for key, one in scene["checks"].items()}

    def cell(keys: tuple[str, ...], text: str) -> str:
        return f"**{text}**" if any(met[key] is False for key in keys) else text

    recall = f"{_of(full['recall_100ms'], _percent)} ({_percent(full['recall_100ms_lower95'])})"
    delay = f"{_of(full['delay_ms_p50'], _ms)}, {_of(full['delay_ms_p95'], _ms)}"
    return _line(
        f"{name}{'' if scene['constructed'] else ' (clip)'}",
        str(scene["events"]),
        cell(("recall_100ms", "recall_at_equal_cost"), recall),
        cell(("delay_at_equal_cost",), delay),
        cell(("frame_f1", "f1_at_equal_cost"), _of(full["frame_f1"], _three)),
        _runs(scene, "full").replace("%", " %"),
        f"{full['cpu_s_per_1000']:.2f}",
        cell(("times_cheaper",), f"{times_cheaper(scene, 'full'):.1f}"),
        _rival(scene).replace("x", ""),
        f"{full['id_switches']} ({scene['sweep'][RIVALS[0]][0]['id_switches']})",
    )


def _chains_row(name: str, scene: Scene) -> str:
    return _line(name, *[_chain_cell(scene, chain) for chain in CHAINS])


def _chain_cell(scene: Scene, chain: str) -> str:
    """CPU seconds per 1000 frames, share of frames that the detector saw, recall, frame F1."""
    one = scene["chains"][chain]
    runs = f"{100 * one['detector_runs'] / scene['frames']:.0f} %"
    recall = _of(one["recall_100ms"], lambda value: f"{100 * value:.0f} %")
    return f"{one['cpu_s_per_1000']:.1f} s, {runs}, {recall}, {_of(one['frame_f1'], _two)}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _of(value: Any, form: Callable[[Any], str]) -> str:
    return "n/a" if value is None else form(value)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _ms(value: float) -> str:
    return f"{value:.0f} ms"


def _two(value: float) -> str:
    return f"{value:.2f}"


def _three(value: float) -> str:
    return f"{value:.3f}"
