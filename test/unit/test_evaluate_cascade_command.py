"""`evaluate cascade`: refused arguments, settings, a short real run, and resuming it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from evaluate_cases import needs_clips
from model_cases import DETECTOR, bundle_or_skip
from stage_cases import RED, color_bundle

from edge_vision.evaluate import command, plot
from edge_vision.evaluate.chains.chain_run import CHAINS
from edge_vision.evaluate.chains.savings import headline
from edge_vision.evaluate.conditions import QUICK_FRAMES
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.presets import gate_settings
from edge_vision.gate.frame_gate import SKIPS

FIGURES = {
    "detector_runs",
    "cpu_s_per_1000",
    "recall_100ms",
    "delay_ms_p50",
    "delay_ms_p95",
    "frame_f1",
    "id_switches",
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--video", "nowhere.mp4"], "nowhere.mp4"),
        (["--conditions", "statik", "--split", "tune"], "got statik"),
        (["--set", "max_delay_ms"], "expected NAME=VALUE with a name out of enabled, "),
        (["--set", "sharpness=3"], "got 'sharpness=3'"),
        (["--set", "max_delay_ms=much"], "max_delay_ms: expected a number, got 'much'"),
        (["--set", "luma_width_px=1.5"], "luma_width_px: expected a number, got '1.5'"),
        (["--cascade", "no_such_stage"], "--cascade no_such_stage: "),
        (["--cascade", "{tmp}/color"], "was not fitted for a cascade"),
        (["--set", "enabled=1"], "enabled: expected true or false, got '1'"),
    ],
)
def test_unusable_arguments_end_with_status_2_and_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    color_bundle(tmp_path, stage=None)
    given = [text.format(tmp=tmp_path) for text in arguments]
    assert command.main(["cascade", *given, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("evaluate: ")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_settings_are_those_of_the_parameter_file_with_changes() -> None:
    economy = gate_settings("economy")
    content = yaml.safe_load((Path(__file__).parents[2] / "config" / "economy.yaml").read_text())
    assert economy == content["/**/gate"]["ros__parameters"]
    changed = gate_settings("economy", ["enabled=false", "luma_width_px=213", "max_delay_ms=0.5"])
    assert changed == {**economy, "enabled": False, "luma_width_px": 213, "max_delay_ms": 0.5}
    with pytest.raises(EvaluateError):
        gate_settings("economy", ["=3"])


def test_the_headline_states_that_nothing_was_evaluated() -> None:
    assert headline({}) == "nothing was evaluated"


@needs_clips
def test_a_short_real_run_can_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle_or_skip(DETECTOR)
    arguments = ["cascade", "--conditions", "static", "--split", "tune", "--quick", "--jobs", "1"]
    arguments += ["--out", str(tmp_path)]
    assert command.main(arguments) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["headline"] in capsys.readouterr().out
    condition = report["conditions"]["static"]
    assert condition["frames"] == QUICK_FRAMES and condition["events"] >= 2
    chains = condition["chains"]
    assert set(chains) == set(CHAINS)
    assert all(set(one) >= FIGURES for one in chains.values())
    every, gate, full = chains["every_frame"], chains["gate"], chains["full"]
    assert (every["detector_runs"], every["recall_100ms"], every["frame_f1"]) == (
        QUICK_FRAMES,
        1.0,
        1.0,
    )
    assert every["id_switches"] is None and full["id_switches"] is not None
    assert every["cpu_s_per_1000"] == pytest.approx(condition["detector_cpu_s"] * 1000)
    # The same gate, with predicted boxes on skipped frames.
    tracked = chains["gate_tracking"]
    assert tracked["detector_runs"] == gate["detector_runs"] < QUICK_FRAMES
    assert tracked["frame_f1"] >= gate["frame_f1"]
    assert sum(full["reasons"].values()) == full["passed"] + sum(
        n for reason, n in full["reasons"].items() if reason in SKIPS
    )
    baseline = chains["fixed_interval_tracker"]
    assert baseline["recall_100ms"] >= full["recall_100ms"]
    for members in condition["sweep"].values():
        assert [one["interval_frames"] for one in members][:3] == [1, 2, 3]
        assert members[0]["frame_f1"] == 1.0
        runs = [one["detector_runs"] for one in members]
        assert runs == sorted(runs, reverse=True)
    assert report["complete"] and report["quick"] and report["full_settings"] == gate_settings("economy")
    assert (tmp_path / "cascade.png").exists() == (plot.missing_package("make evaluate-gate") is None)
    table = (tmp_path / "table.md").read_text().splitlines()
    assert [row.split(" | ")[1] for row in table[2:]] == list(CHAINS)
    assert {row.count("|") for row in table} == {table[0].count("|")}
    assert all(row.startswith("| static | ") for row in table[2:])
    # Costs are measured: a second evaluation would not reproduce them.
    assert command.main([*arguments, "--resume"]) == 0
    assert json.loads((tmp_path / "report.json").read_text())["conditions"] == report["conditions"]


@needs_clips
def test_a_stage_that_rejects_saves_runs_and_costs_recall(tmp_path: Path) -> None:
    bundle_or_skip(DETECTOR)
    # No crop scores that high.
    folder = color_bundle(tmp_path, replace(RED, reject_below=0.999, accept_from=1.0)).folder
    arguments = ["cascade", "--conditions", "static", "--split", "tune", "--quick", "--jobs", "1"]
    assert command.main([*arguments, "--cascade", str(folder), "--out", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    condition = report["conditions"]["static"]
    gate, cascade = condition["chains"]["gate"], condition["chains"]["gate_cascade"]
    assert cascade["detector_runs"] < gate["detector_runs"]
    assert cascade["cascade_reasons"]["unwanted"] == cascade["passed"] - cascade["detector_runs"] > 0
    assert cascade["recall_of_passed"] < 1.0 and cascade["recall_100ms"] < gate["recall_100ms"]
    assert cascade["cascade_ms"] > 0.0
    assert list(report["cascade"]) == condition["cascade"] == [str(folder)]
