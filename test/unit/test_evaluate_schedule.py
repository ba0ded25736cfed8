"""`evaluate schedule`: intervals, cuts, quiet stretches, the verdict, and the presets on a synthetic clip."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from box_cases import boxes
from evaluate_cases import HERE, needs_clips
from model_cases import DETECTOR, bundle_or_skip

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.evaluate import command
from edge_vision.evaluate.baselines import evenly
from edge_vision.evaluate.conditions import Condition, ConditionFrame, GroundTruth
from edge_vision.evaluate.live.live_record import LiveRecord
from edge_vision.evaluate.presets import PRESETS
from edge_vision.evaluate.reference import detector as reference_module
from edge_vision.evaluate.schedule import report
from edge_vision.evaluate.schedule.scene_changes import SceneChanges
from edge_vision.evaluate.schedule.schedule_run import ScheduleRun, fps_class, longest_interval
from edge_vision.evaluate.schedule.verdict import verdict

KEYS = {
    "detector_runs",
    "cpu_s_per_1000",
    "process_cpu_s_per_1000",
    "recall_100ms",
    "recall_low95",
    "delay_ms_p95",
    "fidelity",
    "ceiling",
    "frame_f1",
    "ghosts",
}
CHAINS = [
    "fixed_same_reaction",
    "fixed_same_reaction_economy",
    "every_second",
    "fixed_same_promise",
    "fixed_same_promise_economy",
    "every_frame",
    "balanced",
    "economy",
]


@pytest.mark.parametrize(
    ("max_delay_ms", "fps_hz", "n"),
    [
        (100, 10, 2),
        (100, 25, 3),
        (100, 30000 / 1001, 4),
        (100, 30, 4),
        (100, 60, 7),
        (150, 30, 5),
        (10, 30, 1),
    ],
)
def test_the_longest_interval_keeps_the_reaction(max_delay_ms: float, fps_hz: float, n: int) -> None:
    assert longest_interval(max_delay_ms, fps_hz) == n


def test_the_classes_of_frame_rates() -> None:
    assert [fps_class(fps_hz) for fps_hz in (2.3, 8, 16, 20, 23.976, 60)] == [
        "other",
        "8..16",
        "8..16",
        "other",
        ">=24",
        ">=24",
    ]


@pytest.mark.parametrize("n_inferred", [1, 3, 7, 10])
def test_even_spacing_infers_exactly_so_many_frames(n_inferred: int) -> None:
    at = np.flatnonzero(evenly(n_inferred, 10))
    assert len(at) == n_inferred and at[0] == 0
    assert n_inferred == 1 or np.diff(at).max() - np.diff(at).min() <= 1


def _scene(grey: int, bar_px: int = 0) -> np.ndarray:
    image = np.full((90, 160, 3), grey, np.uint8)
    image[20:70, bar_px : bar_px + 30] = 255 - grey
    return image


def test_cuts_and_quiet_stretches_are_found() -> None:
    scene = SceneChanges()
    # A still scene of 40 frames, a cut to one in motion, and a flash of a single pixel of noise.
    images = [_scene(60)] * 40 + [_scene(200, 2 * at) for at in range(20)]
    for at, image in enumerate(images):
        scene.process(Frame(image, (at + 1) * 33_333_333, ""))
    assert scene.cuts == [40]
    assert scene.quiet_frames == list(range(1, 40))


def test_constant_large_changes_are_no_cuts() -> None:
    scene = SceneChanges()
    rng = np.random.default_rng(1)
    for at in range(30):
        grey = int(rng.integers(0, 255))
        scene.process(Frame(np.full((90, 160, 3), grey, np.uint8), at + 1, ""))
    assert len(scene.cuts) < 10


class _TwoScenes:
    """30 frames of a still scene, then a cut to another one."""

    def render(self) -> Iterator[tuple[np.ndarray, GroundTruth]]:
        for at in range(60):
            yield _scene(60 if at < 30 else 200), []

    def fingerprint(self) -> str:
        return "two scenes"


class _FirstSceneDetector:
    """Finds one object in the dark scene, and nothing in the bright one."""

    def __init__(self) -> None:
        self.bundle = bundle_or_skip(DETECTOR)

    def detect(self, frame: ConditionFrame) -> tuple[Detections, Detections, float]:
        found = boxes((20.0, 20.0, 60.0, 80.0)) if frame.image[0, -1, 0] == 60 else boxes()
        return found, boxes(), 0.01


def _presets(**settings: float) -> tuple[Any, ...]:
    return tuple((name, tuple(sorted(settings.items()))) for name in PRESETS)


def test_the_presets_and_the_fixed_intervals_on_a_synthetic_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector: Any = _FirstSceneDetector()
    monkeypatch.setattr(reference_module, "cache_dir", lambda: tmp_path)
    condition = Condition("two", "two", False, "clip", 30.0, 60, _TwoScenes)
    run = ScheduleRun(presets=_presets(min_fidelity=0.97, max_delay_ms=100.0), seeds=2)
    clip = run.evaluate(condition, detector, lambda _: None)
    chains = clip["chains"]
    assert list(chains) == CHAINS
    assert all(set(one) >= KEYS for one in chains.values())
    assert (clip["cuts"], clip["fps_class"], clip["quiet_share"]) == ([30], ">=24", 0.0)
    every, fixed = chains["every_frame"], chains["fixed_same_reaction"]
    assert (every["frame_f1"], every["detector_runs"], every["ghosts"]) == (1.0, 60, 0)
    # One frame in four: frames 28 and 32 are inferred, and the object stays on 30 and 31.
    assert (fixed["interval_frames"], fixed["detector_runs"], fixed["ghosts"]) == (4, 15, 2)
    assert fixed["frame_f1"] == pytest.approx(2 * 30 / (30 + 32))
    assert chains["every_second"]["ghosts"] == 0
    # The fidelity of one in four is 60/62 of the ceiling, which is 1.
    assert chains["fixed_same_promise"]["interval_frames"] == 3
    held = clip["held_boxes"]["4"]
    assert held["held"] == held["tracks_without_motion"] == fixed["frame_f1"]
    # The gate reports the cut, which ends the tracks.
    assert held["tracks"] == 1.0
    for name in PRESETS:
        ours = chains[name]
        assert (ours["frame_f1"], ours["ghosts"]) == (1.0, 0)
        # Both scenes are still: there is hardly a reason for an inference.
        assert ours["detector_runs"] < 8 and sum(ours["reasons"].values()) == 60
        assert ours["even_spacing_f1"] < 1.0
        assert len(ours["seeds"]["detector_runs"]) == 2


def test_a_preset_whose_rival_cannot_skip_is_compared_with_every_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector: Any = _FirstSceneDetector()
    monkeypatch.setattr(reference_module, "cache_dir", lambda: tmp_path)
    condition = Condition("two", "two", False, "clip", 30.0, 60, _TwoScenes)
    # No interval reaches more than the noise ceiling.
    run = ScheduleRun(presets=_presets(min_fidelity=1.0, max_delay_ms=10.0))
    chains = run.evaluate(condition, detector, lambda _: None)["chains"]
    assert chains["fixed_same_promise"]["interval_frames"] == 1
    assert chains["fixed_same_promise"]["frame_f1"] == 1.0


def _chain(**more: Any) -> dict[str, Any]:
    return {
        "cpu_share": 0.3,
        "process_cpu_s_per_1000": 6.0,
        "recall_max_delay": 1.0,
        "fidelity": 1.0,
        "frame_f1": 0.95,
        "even_spacing_f1": 0.94,
        "quiet_cpu_share": None,
        "ghosts": 0,
        "seeds": {"audit_open_frames": [0]},
        "live": None,
        **more,
    }


def _clip(**more: Any) -> dict[str, Any]:
    """A clip on which the presets meet all targets."""
    chains = {name: _chain() for name in CHAINS}
    chains["every_frame"]["process_cpu_s_per_1000"] = 12.0
    return {
        "constructed": False,
        "fps_class": ">=24",
        "events": 10,
        "held_boxes": {"2": {"tracks": 0.9, "held": 0.9}},
        "chains": chains,
        **more,
    }


SETTINGS = {"balanced": {"min_fidelity": 0.97}, "economy": {"min_fidelity": 0.95}}


def _met(clips: dict[str, Any]) -> dict[str, list[bool | None]]:
    """The start of each target's text -> its results by preset."""
    found: dict[str, list[bool | None]] = {}
    for one in verdict(clips, SETTINGS):
        found.setdefault(one["text"].split(" on ")[0], []).append(one["met"])
    return found


def test_the_verdict_on_clips_that_meet_all_targets() -> None:
    result = _met({f"clip{i}": _clip() for i in range(10)})
    assert {met for results in result.values() for met in results} == {True, None}
    unknown = [text for text, results in result.items() if None in results]
    assert [text.split(" ")[0] for text in unknown] == ["median", "CPU", "the", "live", "vtest"]


def test_the_verdict_names_what_is_missed() -> None:
    clips = {f"clip{i}": _clip() for i in range(10)}
    clips["worse"] = worse = _clip(held_boxes={"3": {"tracks": 0.8, "held": 0.81}})
    worse["chains"]["balanced"] = _chain(
        cpu_share=0.9,
        process_cpu_s_per_1000=12.5,
        recall_max_delay=0.5,
        fidelity=0.96,
        frame_f1=0.90,
        quiet_cpu_share=0.2,
        ghosts=3,
        seeds={"audit_open_frames": [0, 7]},
        live={"frame_f1": 0.93},
    )
    results = {(one["preset"], one["text"]): one for one in verdict(clips, SETTINGS)}
    missed = [text for (preset, text), one in results.items() if preset == "balanced" and one["met"] is False]
    assert len(missed) == 9
    # The median is not affected by one clip, and ten clips are above even spacing.
    assert not any(text.startswith("median") or "above even" in text for text in missed)
    assert not any(one["met"] is False for (preset, _), one in results.items() if preset == "economy")
    recall = results["balanced", "recall within max_delay_ms >= 99%, all events"]
    assert recall["value"] == "105 of 110 events; late on worse"
    fidelity = results["balanced", "fidelity >= 0.97 on every clip"]
    assert fidelity["value"] == "worst 0.960 (worse); missed on 1 of 11"


def test_constructed_scenes_do_not_count() -> None:
    clips = {f"clip{i}": _clip() for i in range(10)}
    expected = _met(clips)
    scene = _clip(constructed=True)
    scene["chains"]["balanced"] = _chain(ghosts=9, fidelity=0.1)
    assert _met({**clips, "scene": scene}) == expected


def test_a_clip_that_was_played_live_shows_what_the_rest_of_the_process_costs() -> None:
    entry: dict[str, Any] = dict.fromkeys(KEYS) | {
        "inferred_share": 1.0,
        "cpu_s_per_1000": 10.0,
        "cpu_share": 1.0,
    }
    clip = {"constructed": False, "fps_hz": 10.0, "fps_class": "other", "frames": 9, "events": 0, "cuts": []}
    clip |= {"noise_ceiling": None, "quiet_share": 0.0}
    live = {"every_frame": entry | {"process_cpu_s_per_1000": 14.2}}
    assert "without detector" in report.lines("c", clip | {"chains": live})[-1]
    assert "4.20 s" in report.lines("c", clip | {"chains": live})[-1]
    assert len(report.lines("c", clip | {"chains": {"every_frame": entry}})) == 2


def test_a_live_record_assigns_boxes_to_frames() -> None:
    record = LiveRecord()
    for index in range(4):
        record.on_source(1000 + index, index)
    record.on_detections(1000, "camera", boxes(HERE), 5.0)
    record.on_tracks(1001, boxes(HERE, HERE))
    record.on_tracks(7777, boxes(HERE))
    record.on_detections(1003, "camera", boxes(), 5.0)
    published, unpublished = record.published(3)
    assert published.inferred.tolist() == [True, False, False]
    assert [len(one) for one in published.detections] == [1, 2, 0]
    assert unpublished == 1
    assert (record.first_index, record.last_index) == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clips", "vtset"], "got vtset"),
        (["--clips", "vtest", "--live", "bikes"], "--live: expected clips out of vtest, got bikes"),
        (["--set", "sharpness=3"], "got 'sharpness=3'"),
        (["--clip", "{tmp}/none.mp4"], "expected a clip, got none of none"),
    ],
)
@needs_clips
def test_unusable_arguments_end_with_status_2_and_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    given = [text.format(tmp=tmp_path) for text in arguments]
    assert command.main(["schedule", *given, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@needs_clips
def test_a_short_real_run_skips_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle_or_skip(DETECTOR)
    out = tmp_path / "out"
    arguments = ["schedule", "--clips", "bikes", "--clip", str(tmp_path / "gone.mp4"), "--quick"]
    assert command.main([*arguments, "--live", "none", "--jobs", "1", "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert list(report["skipped"]) == ["gone"] and report["complete"] and report["quick"]
    clip = report["clips"]["bikes"]
    assert list(clip["chains"]) == CHAINS
    # The five cuts of the clip.
    assert clip["cuts"] == [30, 76, 137, 187]
    for one in clip["chains"].values():
        assert set(one) >= KEYS and one["process_cpu_s_per_1000"] is None
    assert "see --live" in "".join(clip["notes"])
    shown = capsys.readouterr()
    assert report["headline"] in shown.out and "left out: gone: " in shown.err
    assert "<h2>bikes: 25 fps" in (out / "report.html").read_text()
    assert (out / "table.md").read_text().startswith("bikes: 25 fps (>=24), 240 frames")
