"""`optimize auto`: the order of the steps, time and memory bounds, one table, continuing after an end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from optimize_cases import image_folder, tiny_bundle, tiny_graph

from edge_vision.cli.optimize import main
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.report.report_file import read_report
from edge_vision.train import auto
from edge_vision.train.auto import (
    excess,
    needless,
    next_step,
    share_to_remove,
    step_options,
)
from edge_vision.train.auto_state import STEPS, AutoRequest
from edge_vision.train.bounds import MemoryBoundExceeded, TimeBoundExceeded, bounds
from edge_vision.train.recipes import qat
from edge_vision.train.search import search_run

REQUEST = AutoRequest("model", ("clip",), other=("other",), classes=("person",))


def report(p95_ms: float, chosen: bool, loss: float = 0.02) -> Any:
    """A stand-in for a study's report with one int8 candidate."""
    one = SimpleNamespace(
        p95_ms=p95_ms, precision="int8", agreement=1 - loss, measurement=True, backend="onnxruntime"
    )
    decision = SimpleNamespace(chosen="a" if chosen else None, nearest="a")
    return SimpleNamespace(decision=decision, results=[one], result=lambda name: one)


def test_time_is_saved_first_where_the_budget_is_missed() -> None:
    late = replace(REQUEST, budget_ms=10.0)
    assert next_step(STEPS, report(20, False), late).name == "student"
    assert next_step(STEPS, report(15, False), late).name == "prune"
    assert next_step(STEPS, report(20, False), replace(late, other=())).name == "prune"
    assert next_step(STEPS, report(9, False), late).name == "qat"
    assert next_step(STEPS, report(20, True), REQUEST).name == "qat"
    assert excess(report(20, False), late) == 2.0
    assert share_to_remove(report(14, False), late) == 0.29
    assert share_to_remove(report(100, False), late) == 0.5


def test_steps_that_cannot_pay_are_skipped_with_the_reason() -> None:
    by_name = {step.name: step for step in STEPS}
    assert "a is within all bounds" in needless(
        by_name["qat"], report(5, True), replace(REQUEST, budget_ms=9)
    )
    assert needless(by_name["qat"], report(5, True), REQUEST) == ""
    assert "already agrees" in needless(by_name["qat"], report(5, True, loss=0.0), REQUEST)
    assert "--classes and --other" in needless(
        by_name["student"], report(5, True), replace(REQUEST, other=())
    )


def test_a_time_bound_ends_the_step() -> None:
    with pytest.raises(TimeBoundExceeded), bounds(1000, 0.01):
        while True:
            np.ones(1000).sum()


def test_memory_beyond_the_bound_ends_the_step() -> None:
    with pytest.raises(MemoryBoundExceeded, match=r"more than 0\.001 GB"), bounds(0.001):
        while True:
            np.ones(1000).sum()
    with bounds(1000):
        pass
    with pytest.raises(KeyboardInterrupt), bounds(1000):
        raise KeyboardInterrupt


def arguments(tmp_path: Path, *more: str) -> tuple[list[str], Path]:
    bundle = tiny_bundle(tmp_path / "tiny", tiny_graph(tmp_path / "tiny.onnx"))
    clip, out = image_folder(tmp_path / "clip", 60), tmp_path / "out"
    quick = ["--images", "10", "--measure-s", "0.05", "--samples", "48", "--batch", "4"]
    given = ["auto", f"{bundle}/", "--video", str(clip), *quick, "--backends", "onnxruntime", *more]
    return [*given, "--out", str(out)], out


def test_one_table_with_all_steps_and_a_repeated_run_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(qat, "_refusal", lambda *_: "")
    monkeypatch.setattr(auto, "needless", lambda step, *_: "" if step.name == "qat" else "not in this test")
    monkeypatch.setattr(auto, "STEPS", (replace(STEPS[0], steps=50), *STEPS[1:]))
    command, out = arguments(tmp_path)
    assert main(command) == 0
    found = read_report(out / "study")
    assert {one.trained for one in found.results} == {"", "qat"}
    assert (out / "study" / "bundle" / "bundle.yaml").is_file()
    state = json.loads((out / "auto.json").read_text())
    assert {name: one["state"] for name, one in state["outcomes"].items()} == {
        "qat": "done",
        "prune": "skipped",
        "student": "skipped",
        "search": "skipped",
    }
    assert "prune: skipped" in capsys.readouterr().out
    for study_command in (["report", str(out)], ["explain", str(out), found.baseline]):
        assert main(study_command) == 0
        assert found.baseline in capsys.readouterr().out
    assert main(["resume", str(out)]) == 1
    assert "the command that made it continues it" in capsys.readouterr().err
    monkeypatch.setattr(qat, "run_qat", None)
    assert main(command) == 0
    again = json.loads((out / "auto.json").read_text())
    assert again["outcomes"] == state["outcomes"] and again["spent_s"] > state["spent_s"]
    image = next(iter(sorted((tmp_path / "clip").iterdir())))
    image.write_bytes(image.read_bytes() + b"changed")
    assert main(command) == 1
    assert "digests of the clips was" in capsys.readouterr().err


def test_ctrl_c_and_the_same_command_continues_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def run(folder: Path, request: Any, *_: Any) -> Any:
        calls.append(request)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return SimpleNamespace(refused="no gain", cpu_s=1.0)

    monkeypatch.setattr(qat, "run_qat", run)
    monkeypatch.setattr(auto, "needless", lambda step, *_: "" if step.name == "qat" else "not in this test")
    command, out = arguments(tmp_path)
    assert main(command) == 130
    assert json.loads((out / "auto.json").read_text())["outcomes"]["qat"]["state"] == "running"
    assert main([*command, "--hours", "2"]) == 0
    assert calls[0] == calls[1]
    qat_outcome = json.loads((out / "auto.json").read_text())["outcomes"]["qat"]
    assert (qat_outcome["state"], qat_outcome["reason"]) == ("refused", "no gain")


def test_too_little_time_is_a_reason_and_less_memory_a_smaller_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    batches = []

    def run(folder: Path, request: Any, *_: Any) -> Any:
        batches.append(request.batch)
        if request.batch > 1:
            raise MemoryBoundExceeded("the training took more than 4 GB of memory")
        return SimpleNamespace(refused="", cpu_s=1.0)

    monkeypatch.setattr(qat, "run_qat", run)
    monkeypatch.setattr(auto, "needless", lambda step, *_: "" if step.name == "qat" else "not in this test")
    command, out = arguments(tmp_path, "--hours", "1e-9")
    assert main(command) == 0
    skipped = json.loads((out / "auto.json").read_text())["outcomes"]["qat"]
    assert skipped["state"] == "skipped" and "0 s of --hours are left" in skipped["reason"]
    assert len(read_report(out / "study").results) == 1, "the fp32 model alone"
    assert "--hours 1e-09 did not suffice for all measurements" in capsys.readouterr().out
    assert main(command) == 0
    assert "of --hours 1e-09: nothing new is started" in capsys.readouterr().out
    assert len(read_report(out / "study").results) == 1
    assert main([*command, "--hours", "1"]) == 1, "the stand-in writes no bundle"
    assert batches == [4, 2, 1] and len(read_report(out / "study").results) > 1


def test_the_end_of_the_time_interrupts_a_training_and_more_time_continues_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Any] = []
    left_s = [3600.0]

    def run(folder: Path, request: Any, *_: Any) -> Any:
        calls.append(request)
        if len(calls) == 1:
            left_s[0] = 0.0
            (folder / "cpu_time.json").write_text('{"cpu_s": 7.5}')
            raise TimeBoundExceeded
        return SimpleNamespace(refused="no gain", cpu_s=1.0)

    monkeypatch.setattr(qat, "run_qat", run)
    monkeypatch.setattr(auto._Auto, "_left_s", lambda self: left_s[0])
    monkeypatch.setattr(auto, "needless", lambda step, *_: "" if step.name == "qat" else "not in this test")
    command, out = arguments(tmp_path)
    for _ in range(2):
        assert main(command) == 0
        outcome = json.loads((out / "auto.json").read_text())["outcomes"]["qat"]
        assert outcome["state"] == "running" and "has ended" in outcome["reason"]
        assert outcome["cpu_s"] == 7.5
        assert "did not suffice for qat: the same command" in capsys.readouterr().out
    assert len(calls) == 1
    left_s[0] = 3600.0
    assert main(command) == 0
    outcome = json.loads((out / "auto.json").read_text())["outcomes"]["qat"]
    assert (outcome["state"], outcome["reason"]) == ("refused", "no gain") and calls[0] == calls[1]


def test_a_failed_step_is_tried_again_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Any] = []

    def run(folder: Path, request: Any, *_: Any) -> Any:
        calls.append(request)
        if len(calls) == 1:
            raise OptimizeError("the disk is full")
        return SimpleNamespace(refused="no gain", cpu_s=1.0)

    monkeypatch.setattr(qat, "run_qat", run)
    monkeypatch.setattr(auto, "needless", lambda step, *_: "" if step.name == "qat" else "not in this test")
    command, _ = arguments(tmp_path)
    assert main(command) == 0 and "qat: failed: the disk is full" in capsys.readouterr().out
    assert main(command) == 0 and "qat: refused: no gain" in capsys.readouterr().out
    assert calls[0] == calls[1]


def test_a_file_in_place_of_a_steps_folder_fails_this_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(folder: Path, *_: Any) -> Any:
        folder.rmdir()
        folder.write_text("mine")
        raise OptimizeError("no folder")

    monkeypatch.setattr(qat, "run_qat", run)
    monkeypatch.setattr(auto, "needless", lambda step, *_: "" if step.name == "qat" else "not in this test")
    command, out = arguments(tmp_path)
    assert main(command) == 0
    assert main(command) == 0
    assert (
        f"qat: failed: {out / 'qat'}: expected a folder, got a file: move it away" in capsys.readouterr().out
    )
    assert (out / "qat").read_text() == "mine"


@pytest.mark.parametrize(
    ("given", "missing"), [(["--classes", "person"], "--other"), (["--other", "clip"], "--classes")]
)
def test_a_student_needs_classes_and_another_scene(
    tmp_path: Path, given: list[str], missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, out = arguments(tmp_path, *given)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert f"the following arguments are required with {given[0]}, for a student: {missing}" in error
    assert not out.exists()


@pytest.mark.parametrize(
    ("head", "expected"), [("nanodet", "expected labels of the model"), ("classifier", "expected a detector")]
)
def test_a_student_that_the_model_cannot_have_is_refused_before_the_measurement(
    tmp_path: Path,
    head: str,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(auto, "run_study", None)
    scene = image_folder(tmp_path / "scene", 3)
    command, out = arguments(tmp_path, "--classes", "bicycle", "--other", str(scene))
    command[1] = f"{tiny_bundle(tmp_path / 'other', tmp_path / 'tiny.onnx', head)}/"
    assert main(command) == 1
    assert expected in capsys.readouterr().err and not out.exists()


def test_results_of_other_options_are_kept_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(auto, "needless", lambda *_: "not in this test")
    command, out = arguments(tmp_path)
    assert main(command) == 0
    state = (out / "auto.json").read_bytes()
    assert main([*command, "--seed", "3", "--budget-ms", "9"]) == 1
    error = capsys.readouterr().err
    assert "--budget-ms was None, got 9.0; --seed was 0, got 3" in error and "--restart" in error
    assert (out / "auto.json").read_bytes() == state
    assert main([*command, "--seed", "3", "--restart"]) == 0
    assert json.loads((out / "auto.json").read_text())["request"]["seed"] == 3


@pytest.mark.parametrize("wrong", ["clip", "model"])
def test_a_wrong_clip_or_model_leaves_nothing(
    tmp_path: Path, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, out = arguments(tmp_path)
    command[3 if wrong == "clip" else 1] = str(tmp_path / "missing") + "/"
    assert main(command) == 1
    assert "missing" in capsys.readouterr().err and not out.exists()


def test_the_options_of_a_step_follow_from_the_budget() -> None:
    by_name = {step.name: step for step in STEPS}
    late = replace(REQUEST, budget_ms=10.0)
    assert step_options(by_name["qat"], report(14, False), late) == {"runtime": "onnxruntime"}
    assert step_options(by_name["student"], report(14, False), late) == {
        "share": 0.29,
        "classes": ["person"],
        "other": ["other"],
        "runtime": "onnxruntime",
    }
    assert step_options(by_name["search"], report(14, False), late) == {
        "budgets": [0.71],
        "runtime": "onnxruntime",
    }


def test_the_networks_of_a_search_are_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(folder: Path, request: Any, *_: Any) -> Any:
        for budget in request.budgets:
            (folder / f"budget_{budget:g}").mkdir()
            graph = tiny_graph(folder / "tiny.onnx")
            file = tiny_bundle(folder / f"budget_{budget:g}" / "bundle", graph) / "bundle.yaml"
            content = yaml.safe_load(file.read_text("utf-8"))
            content["figures"] = {"train": {"request": {"recipe": "search"}}}
            file.write_text(yaml.safe_dump(content), "utf-8")
        return SimpleNamespace(refused="", cpu_s=1.0)

    monkeypatch.setattr(search_run, "run_search", run)
    monkeypatch.setattr(
        auto, "needless", lambda step, *_: "" if step.name == "search" else "not in this test"
    )
    command, out = arguments(tmp_path)
    assert main(command) == 0
    found = read_report(out / "study")
    assert {one.trained for one in found.results} == {"", "search", "search_2"}
