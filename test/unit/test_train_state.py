"""Trainings in a folder: damaged state, two processes, wrong options and clips, interrupted evaluations."""

from __future__ import annotations

import _thread
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from optimize_cases import image_folder
from test_train_auto import arguments as auto_arguments
from test_train_data import with_package
from test_train_qat import arguments_of, request_of
from test_train_student import COLUMNS, detector

from edge_vision.cli.optimize import main
from edge_vision.offline.output_folder import claim_folder, marker_path
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization import gptq
from edge_vision.optimize.quantization.layer_quantizer import read_statistics
from edge_vision.source.uri import SourceError
from edge_vision.train import auto
from edge_vision.train.auto_state import AutoRequest
from edge_vision.train.cpu_clock import CpuClock, stored_cpu_s
from edge_vision.train.data.teacher import TeacherSamples
from edge_vision.train.data.time_split import check_clips
from edge_vision.train.networks.cutting import cut
from edge_vision.train.recipes import qat, student_run
from edge_vision.train.recipes.distillation import Distillation, ParameterGroup, batch_numbers
from edge_vision.train.recipes.run_folder import remove_results, stored_choice
from edge_vision.train.recipes.training_request import TrainingRequest
from edge_vision.train.search.measuring import Records

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingRequest, Path]:
    """A request, and the folder with its results, for all tests: see `finished`."""
    folder = tmp_path_factory.mktemp("results")
    request = request_of(folder, steps=2)
    assert main(arguments_of(request, folder / "out")) in (0, 3)
    return request, folder / "out"


@pytest.fixture
def finished(results: tuple[TrainingRequest, Path], tmp_path: Path) -> tuple[TrainingRequest, Path]:
    """A request, and the folder with its results, which the test may change."""
    shutil.copytree(results[1], tmp_path / "out")
    return results[0], tmp_path / "out"


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files but the marker, which has the number of the last process."""
    files = (file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.parametrize("damage", ["", "{", "[]", None])
def test_results_with_a_damaged_request_are_refused_and_kept(
    finished: tuple[TrainingRequest, Path], damage: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    request, out = finished
    file = out / "request.json"
    file.unlink() if damage is None else file.write_text(damage)
    before = contents(out)
    assert main(arguments_of(replace(request, steps=3), out)) == 1
    error = capsys.readouterr().err
    assert "request.json" in error and "restore it" in error and "--restart" in error
    assert contents(out) == before
    assert main([*arguments_of(replace(request, steps=3), out), "--restart"]) in (0, 3)


@pytest.mark.parametrize("name", ["samples", "ranges"])
def test_a_file_in_place_of_a_folder_is_refused_and_kept(
    finished: tuple[TrainingRequest, Path], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    request, out = finished
    shutil.rmtree(out / name)
    (out / name).write_text("mine")
    before = contents(out)
    assert main(arguments_of(request, out)) == 1
    error = capsys.readouterr().err
    assert f"{out / name}: expected a folder, got a file: move it away" in error and "Traceback" not in error
    assert contents(out) == before


def test_a_damaged_source_is_written_again_and_results_are_kept(
    finished: tuple[TrainingRequest, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    request, out = finished
    checkpoint = (out / "checkpoint.pt").read_bytes()
    for name, damage in (("bundle.yaml", None), ("model.onnx", b"")):
        file = out / "source" / name
        file.unlink() if damage is None else file.write_bytes(damage)
        assert main(arguments_of(request, out)) in (0, 3)
        assert "incomplete or damaged; it is written again" in capsys.readouterr().out
        assert (out / "checkpoint.pt").read_bytes() == checkpoint


def test_only_what_a_run_wrote_is_removed(tmp_path: Path) -> None:
    for name in ("budget_mine/f", "budget_0.8/bundle/model.onnx", "budget_0.6/int8/a", "budget_0.6/notes"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "report.json").write_text("{}")
    remove_results(tmp_path)
    assert sorted(contents(tmp_path)) == ["budget_0.6/notes", "budget_mine/f"]
    assert not (tmp_path / "budget_0.8").exists()


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("checkpoint.pt", b"", "delete it to train again"),
        ("checkpoint.pt", b"garbage", "delete it to train again"),
        ("checkpoint.pt", 0.5, "delete it to train again"),
        ("samples/targets.json", b"[]", ""),
        ("samples/targets.json", b"{", ""),
        ("samples/0.npy", 0.5, ""),
        ("samples/1.npy", b"", ""),
        ("samples/1.npy", b"0.npy", ""),  # The content of another file.
        ("samples/0.npy", b"zeros", ""),
        ("ranges/teacher.json", b"[1]", ""),
        ("ranges/teacher.json", b'{"x": [1, 2]}', ""),
        ("ranges/*.npz", 0.5, ""),
        ("ranges/*.npz", b"", ""),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_damaged_caches_are_made_again(
    finished: tuple[TrainingRequest, Path],
    name: str,
    damage: bytes | float,
    expected: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    request, out = finished
    report, checkpoint = json.loads((out / "report.json").read_text()), (out / "checkpoint.pt").read_bytes()
    (file,) = out.glob(name)
    whole = file.read_bytes()
    if damage == b"0.npy":
        damage = file.with_name("0.npy").read_bytes()
    elif damage == b"zeros":
        damage = whole[:128] + bytes(len(whole) - 128)
    file.write_bytes(damage if isinstance(damage, bytes) else whole[: int(damage * len(whole))])
    (out / "report.json").unlink()  # Killed just before its end.
    status = main(arguments_of(request, out))
    printed = capsys.readouterr()
    if expected:
        assert status == 1 and str(file) in printed.err and expected in printed.err
        return
    assert status in (0, 3), printed.err
    assert ("computed again" in printed.out) == name.startswith("samples")
    assert (out / "checkpoint.pt").read_bytes() == checkpoint
    assert file.read_bytes() == whole
    assert json.loads((out / "report.json").read_text())["qualities"] == report["qualities"]


def test_a_damaged_line_of_records_is_named(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    Records(file).get("a", lambda: 1)
    for bad in (b"{]\n", b"[1]\n", b'{"b": 3}\n', b"\xff\n"):
        good = file.read_bytes()
        file.write_bytes(good + bad)
        with pytest.raises(OptimizeError, match=r"records\.jsonl: .* in line 2, got a damaged one: delete"):
            Records(file)
        assert file.read_bytes() == good + bad
        file.write_bytes(good)
    with pytest.raises(
        OptimizeError, match=r"records\.jsonl: .* for 'a', got a damaged one: delete its line"
    ):
        Records(file).get("a", dict, Mapping[str, float])


def test_a_measured_choice_is_kept_for_its_checkpoint(tmp_path: Path) -> None:
    kind, file = Mapping[str, float], tmp_path / "ranges" / "times.json"
    assert stored_choice(tmp_path, "times.json", kind, lambda: {"a": 1.0}) == {"a": 1.0}
    assert stored_choice(tmp_path, "times.json", kind, pytest.fail) == {"a": 1.0}
    for content in ("{", "[]", "null", '{"a": "b"}', '{"a": null}'):
        file.write_text(content)
        assert stored_choice(tmp_path, "times.json", kind, lambda: {"a": 2.0}) == {"a": 2.0}
    (tmp_path / "checkpoint.pt").touch()
    file.write_text("{")
    with pytest.raises(OptimizeError, match=r"times\.json: expected what checkpoint.pt was trained with"):
        stored_choice(tmp_path, "times.json", kind, pytest.fail)


@pytest.mark.parametrize("content", ['{"cpu_s": "x"}', '{"cpu_s": null}', "[]", "{"])
def test_a_damaged_cpu_time_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "cpu_time.json").write_text(content)
    assert stored_cpu_s(tmp_path / "cpu_time.json") == 0.0
    assert CpuClock(tmp_path / "cpu_time.json", "x").cpu_s < 60  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["[]", "{", '{"cpu_s": "x"}', None])
def test_a_damaged_report_is_made_again(finished: tuple[TrainingRequest, Path], damage: str | None) -> None:
    request, out = finished
    report = json.loads((out / "report.json").read_text())
    (out / "report.json").unlink() if damage is None else (out / "report.json").write_text(damage)
    assert main(arguments_of(request, out)) in (0, 3)
    again = json.loads((out / "report.json").read_text())
    assert again["qualities"] == report["qualities"] and again["curve"] == report["curve"]


def test_a_repeated_finished_run_changes_nothing(
    finished: tuple[TrainingRequest, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    request, out = finished
    monkeypatch.setattr(qat, "run_qat", pytest.fail)
    refused = json.loads((out / "report.json").read_text())["refused"]
    (out / "bundle").mkdir(exist_ok=True)
    (out / "bundle" / "notes.txt").write_text("mine")
    before = contents(out)
    assert main(arguments_of(request, out)) == (3 if refused else 0)
    printed = capsys.readouterr().out
    assert "finished before with these options" in printed and "CPU-min" in printed
    assert contents(out) == before


def test_a_bundle_that_is_gone_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qat, "_refusal", lambda *_: "")
    request, out = request_of(tmp_path, steps=2), tmp_path / "out"
    assert main(arguments_of(request, out)) == 0
    before = (out / "bundle" / "model.onnx").read_bytes()
    (out / "bundle" / "model.onnx").write_bytes(b"")
    assert main(arguments_of(request, out)) == 0
    assert (out / "bundle" / "model.onnx").read_bytes() == before


def test_damaged_ranges_and_roundings_count_as_none(tmp_path: Path) -> None:
    file = tmp_path / "a"
    for content in (
        b"",
        b"null",
        b"[1]",
        b"{}",
        b'{"a": 1}',
        b'{"a": ["x", "y"]}',
        b"PK\x03\x04garbage",
        b"PK\x05\x06",
    ):
        file.write_bytes(content)
        assert read_statistics(file) is None and gptq.read_rounding(file) is None


def test_changed_content_of_the_inputs_is_noticed(
    finished: tuple[TrainingRequest, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    request, out = finished
    picture = min(Path(request.videos[0]).iterdir())
    whole, before = picture.read_bytes(), contents(out)
    try:
        picture.write_bytes((picture.parent / max(os.listdir(picture.parent))).read_bytes())
        assert main(arguments_of(request, out)) == 1
    finally:
        picture.write_bytes(whole)
    assert "digests of the clips was clip:" in capsys.readouterr().err and contents(out) == before
    stored = json.loads((out / "request.json").read_text())
    for changed, status in (({"model_sha256": "0"}, (1,)), ({}, (0, 3))):
        kept = {name: value for name, value in stored.items() if name not in ("clips", "model_sha256")}
        (out / "request.json").write_text(json.dumps(kept | changed))
        assert main(arguments_of(request, out)) in status, "what an earlier version stored has no digests"


@pytest.mark.parametrize("command", ["optimize-train", "optimize-auto"])
def test_a_second_process_in_a_folder_is_refused(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    if command == "optimize-train":
        arguments = arguments_of(request_of(tmp_path, steps=2), out)
    else:
        arguments, _ = auto_arguments(tmp_path)
    claim_folder(out, command)
    code = (
        "import pathlib, sys\n"
        "from edge_vision.offline.output_folder import locked_folder\n"
        f"with locked_folder(pathlib.Path({str(out)!r}), {command!r}):\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], env=with_package(), stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None and other.stdout.readline() == b"locked\n"
        assert main([*arguments, "--restart"]) == 1
        error = capsys.readouterr().err
        assert f"expected no other running `{command}` with this --out, got process {other.pid}:" in error
        assert marker_path(out, command).is_file(), "the first process needs it"
        other.communicate()
    if command == "optimize-train":
        assert main(arguments) in (0, 3), "the lock ends with the process"


@pytest.mark.parametrize(
    "arguments",
    [
        ("student", "m", "--classes", "a", "--video", "CLIP", "--other", "nosuch.mp4"),
        ("student", "m", "--classes", "a", "--video", "CLIP", "--other", "EMPTY"),
        ("qat", "m", "--video", "nosuch.mp4"),
        ("qat", "m", "--video", "CLIP", "--judge", "nosuch.mp4"),
        ("qat", "m", "--video", "CLIP", "--judge", "CLIP"),
        ("student", "m", "--classes", "a", "--video", "CLIP", "--other", "CLIP"),
    ],
)
def test_unusable_clips_are_refused_before_anything_is_written(
    tmp_path: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    clip, out = image_folder(tmp_path / "clip", 3), tmp_path / "out"
    (tmp_path / "empty").mkdir()
    places = {"CLIP": str(clip), "EMPTY": str(tmp_path / "empty")}
    given = ["train", *(places.get(one, one) for one in arguments), "--out", str(out)]
    assert main(given) == 1
    error = capsys.readouterr().err
    assert any(text in error for text in ("nosuch.mp4", "got none that", "got one of them", "got a clip to"))
    assert not out.exists()


def test_other_scenes_are_checked_for_users_of_the_module(tmp_path: Path) -> None:
    request = replace(request_of(tmp_path), recipe="student", classes=("a",), other=("nosuch.mp4",))
    with pytest.raises(SourceError, match=r"nosuch\.mp4"):
        student_run.run_student(tmp_path, request, lambda text: None, lambda text: None)
    assert not (tmp_path / "request.json").exists()
    check_clips(request.videos, (), ())


OUT_OF_RANGE = [
    ("train qat m", "--steps", "0", "1 to 10000000"),
    ("train qat m", "--steps", "1.5", "1 to 10000000"),
    ("train qat m", "--batch", "0", "1 to 4096"),
    ("train qat m", "--samples", "7", "8 to 10000000"),
    ("train qat m", "--seed", "-1", "0 to 4294967295"),
    ("train qat m", "--samples", "10000001", "8 to 10000000"),
    ("train qat m", "--threads", "-3", "0 to 1024"),
    ("train qat m", "--mixed", "2", "0 or more and less than 1"),
    ("train prune m", "--share", "nan", "more than 0 and less than 1"),
    ("train student m --classes a --other b", "--share", "1", "0 or more and less than 1"),
    ("train student m --classes a --other b", "--levels", "-1", "0 or more"),
    ("train student m --classes a --other b", "--width", "nan", "0 to 16"),
    ("train student m --classes a --other b", "--width", "-1", "0 to 16"),
    ("train student m --classes a --other b", "--depth", "0", "1 to 32"),
    ("search m", "--budgets", "nan", "a share of the time, more than 0 and at most 1"),
    ("search m", "--budget-hours", "inf", "0 or more, at most 10000"),
    ("auto m", "--batch", "-1", "1 to 4096"),
    ("auto m", "--hours", "inf", "more than 0, at most 10000"),
    ("auto m", "--hours", "0", "more than 0, at most 10000"),
    ("auto m", "--images", "3", "8 or more"),
    ("auto m", "--budget-ms", "nan", "a number above 0"),
]


@pytest.mark.parametrize(("command", "option", "value", "expected"), OUT_OF_RANGE)
def test_options_out_of_range_are_wrong_arguments(
    command: str, option: str, value: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--video", "v", "--out", "o", option, value])
    assert ended.value.code == 2
    assert f"{option}: expected {expected}, got {value}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: TrainingRequest("qat", "m", ("v",), steps=0), "--steps: expected 1 to 10000000, got 0"),
        (lambda: TrainingRequest("prune", "m", ("v",)), "--share: expected more than 0 and less than 1"),
        (lambda: TrainingRequest("search", "m", ("v",)), "--budgets: expected numbers above 0, got none"),
        (lambda: TrainingRequest("search", "m", ("v",), budgets=(0.5, -1)), "--budgets: .*, got -1"),
        (lambda: TrainingRequest("search", "m", ("v",), budgets=(1,), hours=-1), "--budget-hours: "),
        (lambda: TrainingRequest("student", "m", ("v",), levels=-5), "--levels: expected 0 or more, got -5"),
        (lambda: AutoRequest("m", ("v",), hours=float("inf")), "--hours: .* at most 10000, got inf"),
        (lambda: AutoRequest("m", ("v",), batch=0), "--batch: expected 1 to 4096, got 0"),
    ],
)
def test_requests_check_themselves(make: Callable[[], Any], expected: str) -> None:
    with pytest.raises(OptimizeError, match=expected):
        make()


def test_more_feature_maps_than_the_model_has_are_refused() -> None:
    with pytest.raises(OptimizeError, match="--levels: expected at most 0, the model's feature maps"):
        cut(detector(), COLUMNS, [0], 9)


def test_a_batch_may_have_each_sample_several_times() -> None:
    numbers = batch_numbers(16, 1, 40, 0)
    assert len(numbers) == 40 and set(numbers) == set(range(16))
    assert [*batch_numbers(16, 0, 40, 0), *numbers] == batch_numbers(16, 0, 80, 0)


def trained(folder: Path, steps: int, score: Callable[[torch.nn.Linear], float]) -> tuple[Any, list[float]]:
    """Progress of a tiny training, or of its continuation, and the weights at its end."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(0, 1, (64, 4)).astype(np.float32)
    targets = inputs @ rng.normal(0, 1, (4, 2)).astype(np.float32)
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 2)
    student = torch.nn.Module()
    student.forward = lambda x: {"y": layer(x)}  # type: ignore[method-assign]
    group = ParameterGroup(list(layer.parameters()), 1e-2)
    samples = TeacherSamples(inputs, {"y": targets})
    training = Distillation(student, [group], samples, lambda: score(layer), folder / "c.pt")
    progress = training.run(steps, 8, 0, lambda step, loss, left_s: None)
    return progress, layer.weight.detach().flatten().tolist()


@pytest.mark.parametrize("call", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("steps", [24, 60])
def test_an_interrupted_evaluation_is_repeated(tmp_path: Path, call: int, steps: int) -> None:
    """call: in which evaluation of a state Ctrl-C comes. The second one of a step is that of the average."""

    def score(layer: torch.nn.Linear) -> float:
        calls.append(0)
        if len(calls) == interrupted:
            raise KeyboardInterrupt
        return -float((layer.weight.detach() - 0.5).square().sum())

    calls: list[int] = []
    interrupted = 0
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole, expected = trained(tmp_path / "whole", steps, score)
    calls, interrupted = [], min(call + 1, 1 + 2 * len(whole.curve))
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "parts", steps, score)
    interrupted = 0
    parts, found = trained(tmp_path / "parts", steps, score)
    assert parts.curve == whole.curve and [step for step, _, _ in parts.curve][-1] == steps
    assert found == expected and parts.best_score == whole.best_score


@pytest.mark.parametrize(("gain", "kept"), [(0.005, False), (0.02, True)])
def test_a_gain_that_may_be_chance_keeps_the_untrained_state(tmp_path: Path, gain: float, kept: bool) -> None:
    untrained: list[list[float]] = []

    def score(layer: torch.nn.Linear) -> float:
        untrained.append(layer.weight.detach().flatten().tolist())
        return gain * (len(untrained) > 1)

    _, found = trained(tmp_path, 24, score)
    assert (found != untrained[0]) == kept


@pytest.mark.parametrize("content", ["", '{"a": 1}', "[]", None])
def test_a_damaged_state_of_auto_is_refused_and_results_are_kept(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    command, out = auto_arguments(tmp_path)
    claim_folder(out, "optimize-auto")
    for name in ("study/report.json", "qat/checkpoint.pt"):
        (out / name).parent.mkdir()
        (out / name).write_text("x")
    if content is not None:
        (out / "auto.json").write_text(content)
    before = contents(out)
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "auto.json" in error and "restore it" in error and "--restart" in error
    assert contents(out) == before


@pytest.mark.parametrize(
    "changed",
    [
        {"spent_s": math.nan},
        {"spent_s": -1.0},
        {"outcomes": {"prune": {"state": "bogus"}}},
        {"outcomes": {"prune": {"state": "running", "steps": "abc"}}},
        {"outcomes": {"prune": {"state": "running", "options": {"seed": 5}}}},
        {"outcomes": {"prune": {"state": "running", "options": [1]}}},
        {"outcomes": {"../evil": {"state": "done"}}},
    ],
)
def test_an_edited_state_of_auto_is_refused(
    tmp_path: Path, changed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    command, out = auto_arguments(tmp_path)
    claim_folder(out, "optimize-auto")
    content = {"request": {}, "spent_s": 1.0, "outcomes": {}, "inputs": {}} | changed
    (out / "auto.json").write_text(json.dumps(content))
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "auto.json" in error and "got a damaged file: restore it" in error


def test_an_unreadable_clip_of_a_step_ends_that_step_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any) -> Any:
        raise SourceError("nosuch.mp4: cannot be opened")

    monkeypatch.setattr(qat, "run_qat", run)
    monkeypatch.setattr(auto, "needless", lambda step, *_: "" if step.name == "qat" else "not in this test")
    command, out = auto_arguments(tmp_path)
    assert main(command) == 0
    outcome = json.loads((out / "auto.json").read_text())["outcomes"]["qat"]
    assert (outcome["state"], outcome["reason"]) == ("failed", "nosuch.mp4: cannot be opened")


def test_a_missing_other_scene_ends_auto_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, out = auto_arguments(tmp_path, "--other", "nosuch.mp4", "--classes", "a")
    assert main(command) == 1
    assert "nosuch.mp4" in capsys.readouterr().err and not out.exists()


def test_ctrl_c_within_a_step_waits_for_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def score(layer: torch.nn.Linear) -> float:
        return -float((layer.weight.detach() - 0.5).square().sum())

    def step(self: torch.optim.Adam) -> None:
        calls.append(0)
        if len(calls) == 10:
            _thread.interrupt_main()
        whole_step(self)

    calls: list[int] = []
    whole_step = torch.optim.Adam.step
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)  # Other tests may leave theirs.
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    _, expected = trained(tmp_path / "whole", 24, score)
    monkeypatch.setattr(torch.optim.Adam, "step", step)
    try:
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "parts", 24, score)
    finally:
        signal.signal(signal.SIGINT, earlier)
    assert len(calls) == 10
    parts, found = trained(tmp_path / "parts", 24, score)
    assert found == expected and parts.step == len(calls) == 24
