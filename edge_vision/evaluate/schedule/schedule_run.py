"""The presets and the fixed intervals on one clip, from its first frame to the figures of the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_vision.evaluate.baselines import evenly, every
from edge_vision.evaluate.chains.chain import Chain
from edge_vision.evaluate.condition_run import ConditionRun, Entry, Scene
from edge_vision.evaluate.gate.recorded_gate import SEED, GateRecord
from edge_vision.evaluate.metrics.builtin import RecallWithin
from edge_vision.evaluate.metrics.frame_f1 import ghost_boxes, pooled_f1
from edge_vision.evaluate.metrics.metric import Cost, MethodRun
from edge_vision.evaluate.presets import Settings, gate_config
from edge_vision.evaluate.schedule.scene_changes import SceneChanges
from edge_vision.evaluate.simulation import Published, with_held_boxes, with_tracks, without_tracker
from edge_vision.gate.frame_gate import GateConfig
from edge_vision.gate.scheduler import DELAY_TOLERANCE

FIRST_PRESET = "balanced"
FPS_CLASSES = {">=24": (23.5, float("inf")), "8..16": (8.0, 16.5)}
OTHER_FPS = "other"


def rival(kind: str, preset: str) -> str:
    """The chain of a fixed interval that satisfies a preset's promise; kind: same_reaction, same_promise."""
    return f"fixed_{kind}" + ("" if preset == FIRST_PRESET else f"_{preset}")


def longest_interval(max_delay_ms: float, fps_hz: float) -> int:
    """The fixed interval in frames with a guaranteed reaction.

    An object that appears right after an inference waits all but one frame of it.
    """
    return 1 + int(max_delay_ms * DELAY_TOLERANCE * 1e-3 * fps_hz)


def fps_class(fps_hz: float) -> str:
    """The class of frame rates that has a target of its own."""
    return next((name for name, (low, high) in FPS_CLASSES.items() if low <= fps_hz <= high), OTHER_FPS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRun(ConditionRun):
    """Compares presets with fixed intervals. presets: (name, settings of the gate). seeds: of the audit."""

    presets: tuple[tuple[str, tuple[tuple[str, float | int | bool], ...]], ...]
    seeds: int = 1

    def n_simulated(self) -> int:
        """About one step per chain, even spacing and fixed interval."""
        return 2 + 6 * len(self.presets)

    def compare(self, scene: Scene) -> Entry:
        """See ConditionRun."""
        configs = {name: gate_config(Settings(settings)) for name, settings in self.presets}
        chains = {
            (name, seed): Chain(config, seed=SEED + seed)
            for name, config in configs.items()
            for seed in range(self.seeds)
        }
        changes = SceneChanges()
        scene.play([*(chain.process for chain in chains.values()), changes.process])
        clip = _Clip(scene, changes)
        records = {name: [chains[name, seed].record for seed in range(self.seeds)] for name in configs}
        return {
            **scene.header({name: seeds[0] for name, seeds in records.items()}),
            "fps_class": fps_class(scene.condition.fps_hz),
            "quiet_share": len(changes.quiet_frames) / len(scene.reference),
            "cuts": changes.cuts,
            "chains": clip.chains(configs, records),
            "held_boxes": clip.held_boxes(
                max(clip.interval(config) for config in configs.values()), records[FIRST_PRESET][0]
            ),
        }


class _Clip:
    """The figures of all chains on a clip."""

    def __init__(self, scene: Scene, changes: SceneChanges) -> None:
        self._scene, self._changes = scene, changes
        self._reference = scene.reference

    def interval(self, config: GateConfig) -> int:
        """The fixed interval that guarantees the reaction."""
        return longest_interval(config.max_delay_ms, self._scene.condition.fps_hz)

    def chains(self, configs: dict[str, GateConfig], records: dict[str, list[GateRecord]]) -> Entry:
        """The figures of each chain; the fixed intervals come first."""
        first = configs[FIRST_PRESET]
        chains: Entry = {}
        for name, config in configs.items():
            chains[rival("same_reaction", name)] = self._fixed(self.interval(config), config)
        chains["every_second"] = self._fixed(2, first)
        for name, config in configs.items():
            chains[rival("same_promise", name)] = self._same_promise(config)
        every_frame = without_tracker(np.ones(len(self._reference), bool), self._reference)
        chains["every_frame"] = self._entry(every_frame, Cost(), first) | {"interval_frames": 1}
        for name, config in configs.items():
            chains[name] = self._preset(records[name], config)
        whole = chains["every_frame"]["cpu_s_per_1000"]
        return {
            name: entry | {"cpu_share": entry["cpu_s_per_1000"] / whole} for name, entry in chains.items()
        }

    def held_boxes(self, longest: int, record: GateRecord) -> Entry:
        """Frame F1 of held boxes and of tracks for each fixed interval up to the longest.

        The tracks get the camera motion that the gate measured, as in the detector node, and none.
        """
        methods: dict[str, Callable[[np.ndarray], Published]] = {
            "held": lambda inferred: with_held_boxes(inferred, self._reference),
            "tracks": lambda inferred: with_tracks(inferred, self._reference, record.motions),
            "tracks_without_motion": lambda inferred: with_tracks(inferred, self._reference),
        }
        expected = self._reference.detections
        intervals = {n: every(n, len(expected)) for n in range(2, longest + 1)}
        return {
            str(n): {name: pooled_f1(method(one).detections, expected) for name, method in methods.items()}
            for n, one in intervals.items()
        }

    def _fixed(self, n: int, config: GateConfig) -> Entry:
        published = with_tracks(every(n, len(self._reference)), self._reference)
        return self._entry(published, Cost(), config) | {"interval_frames": n}

    def _same_promise(self, config: GateConfig) -> Entry:
        """The longest interval with the reaction and the fidelity, chosen with hindsight."""
        for n in range(self.interval(config), 1, -1):
            entry = self._fixed(n, config)
            if entry["fidelity"] is None or entry["fidelity"] >= config.min_fidelity:
                return entry
        return self._fixed(1, config)

    def _preset(self, seeds: list[GateRecord], config: GateConfig) -> Entry:
        record = seeds[0]
        inferred = np.array(record.accepted)
        published = with_tracks(inferred, self._reference, record.motions, record.at_rest)
        even = with_tracks(evenly(int(inferred.sum()), len(inferred)), self._reference)
        return {
            **self._entry(published, Cost(record.ms, sum(record.cpu_s)), config),
            "reasons": dict(sorted(record.reasons.items())),
            "even_spacing_f1": pooled_f1(even.detections, self._reference.detections),
            "quiet_cpu_share": self._quiet_cpu_share(record, published),
            "seeds": {
                "detector_runs": [sum(one.accepted) for one in seeds],
                "audit_open_frames": [one.reasons["audit_open"] for one in seeds],
            },
        }

    def _entry(self, published: Published, cost: Cost, config: GateConfig) -> Entry:
        data = self._scene.data
        return {
            **self._scene.entry(published, cost),
            "recall_max_delay": RecallWithin(config.max_delay_ms).compute(MethodRun(data, published, cost)),
            "max_delay_ms": config.max_delay_ms,
            "ceiling": data.noise_ceiling,
            "ghosts": ghost_boxes(
                published.detections,
                published.inferred.tolist(),
                self._reference.detections,
                self._changes.cuts,
            ),
            "process_cpu_s_per_1000": None,
        }

    def _quiet_cpu_share(self, record: GateRecord, published: Published) -> float | None:
        """CPU on the quiet stretches as a share of the every-frame detector's; None without any."""
        quiet = self._changes.quiet_frames
        if not quiet:
            return None
        detector_cpu_s = self._reference.detector_cpu_s
        per_frame_s = published.tracker_cpu_s / len(self._reference)
        gate_s = float(np.array(record.cpu_s)[quiet].mean()) + per_frame_s
        return gate_s / detector_cpu_s + float(published.inferred[quiet].mean())
