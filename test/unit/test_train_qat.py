"""Quantization-aware training: exact start, LSQ's gradients, the command, interruption, NaN, refusal."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from optimize_cases import image_folder, tiny_bundle, tiny_graph
from test_train_graph import RECIPE, folded, random_images

from edge_vision.bundles.store import load_bundle
from edge_vision.cli.optimize import main
from edge_vision.optimize.quantization import graph_session, ptq
from edge_vision.optimize.quantization.int8_recipe import int8_recipe
from edge_vision.train.graph.lsq import RoundedActivation, trainable
from edge_vision.train.graph.torch_graph import written_back
from edge_vision.train.recipes import qat, training_run
from edge_vision.train.recipes.distillation import Distillation, ParameterGroup, batch_numbers
from edge_vision.train.recipes.qat import run_qat
from edge_vision.train.recipes.training_report import Quality
from edge_vision.train.recipes.training_request import TrainingRequest
from edge_vision.train.recipes.training_run import TrainingRun


@pytest.mark.parametrize("name", ["ssdlite_mobilenet_v2_coco", "efficientnet_lite0_imagenet", "nanodet_320"])
def test_the_start_is_ptq_bit_by_bit(name: str) -> None:
    model = folded(name)
    images = random_images(model)
    ranges = ptq.calibrate(model, [images])
    quantized = ptq.quantize(model, ranges, RECIPE)
    outputs = [value.name for value in quantized.graph.output]
    graph, student = trainable(quantized, model, outputs)
    assert len(student.integers) >= 30
    again = written_back(quantized, student.values())
    assert again.SerializeToString() == quantized.SerializeToString()
    session = graph_session.session(quantized, exact=True)
    expected = session.run(outputs, {model.graph.input[0].name: images})
    with torch.no_grad():
        found = graph(torch.from_numpy(images))
    for output, value in zip(outputs, expected, strict=True):
        noise = np.square(found[output].numpy() - value).sum() / np.square(value).sum()
        assert noise < 1e-3, "values between two steps may be rounded either way"


def test_gradients_of_a_quantizer_are_those_of_lsq() -> None:
    x = torch.tensor([-9.0, 0.3, 0.7, 9.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    y = RoundedActivation.apply(x, scale, -4, 3)
    torch.testing.assert_close(y.detach(), torch.tensor([-2.0, 0.5, 0.5, 1.5]))
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]
    # Outside: the limit. Inside: the rounded minus the exact number of steps.
    assert scale.grad.item() == pytest.approx(-4 + (1 - 0.6) + (1 - 1.4) + 3)


def request_of(tmp_path: Path, **changes: object) -> TrainingRequest:
    bundle = tiny_bundle(tmp_path / "tiny", tiny_graph(tmp_path / "tiny.onnx"))
    clip = image_folder(tmp_path / "clip", 60)
    small = TrainingRequest("qat", f"{bundle}/", (str(clip),), (), 60, 4, 48, 40, 12)
    return replace(small, **changes)  # type: ignore[arg-type]


WITHOUT_STEM = int8_recipe("onnxruntime", (), "aarch64")


def arguments_of(request: TrainingRequest, out: Path) -> list[str]:
    numbers = {
        "steps": request.steps,
        "batch": request.batch,
        "samples": request.samples,
        "frames": request.frames,
    }
    options = [text for name, value in numbers.items() for text in (f"--{name}", str(value))]
    return ["train", "qat", request.model, "--video", request.videos[0], *options, "--out", str(out)]


def test_the_command_writes_a_bundle_with_its_lineage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qat, "_refusal", lambda *_: "")
    request, out = request_of(tmp_path), tmp_path / "out"
    assert main(arguments_of(request, out)) == 0
    bundle = load_bundle(f"{out / 'bundle'}/")
    assert bundle.manifest.graphs[0].precision == "int8"
    lineage = bundle.manifest.figures["train"]
    assert lineage["request"]["recipe"] == "qat"
    assert lineage["parent_sha256"] == load_bundle(request.model).manifest.graphs[0].sha256
    assert lineage["train"][0]["sha256"] == lineage["judge"][0]["sha256"]
    assert lineage["train"][0]["end"] < lineage["judge"][0]["start"]
    assert lineage["request"]["seed"] == 0
    ptq.summarize(graph_session.load_model(bundle.verify(bundle.manifest.graphs[0])))
    printed = capsys.readouterr().out
    assert "QAT" in printed and "CPU-min" in printed
    assert "18 to judge (72 crops), of other time ranges" in printed and "on 18 frames, 72 crops" in printed
    assert bundle.name == f"tiny_qat_int8_{bundle.manifest.input.width_px}x{bundle.manifest.input.height_px}"
    curve = json.loads((out / "report.json").read_text())["curve"]
    assert [step for step, _, _ in curve] == [25, 50, 60]


def test_a_repeated_command_keeps_the_cpu_time_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qat, "_refusal", lambda *_: "")
    request, out = request_of(tmp_path, steps=2), tmp_path / "out"
    assert main(arguments_of(request, out)) == 0
    report = json.loads((out / "report.json").read_text())
    (out / "report.json").write_text(json.dumps(report | {"cpu_s": 1234.5}))
    for lost in ((), ("bundle",)):  # The second time it is written again.
        for name in lost:
            shutil.rmtree(out / name)
        assert main(arguments_of(request, out)) == 0
        assert json.loads((out / "report.json").read_text())["cpu_s"] == 1234.5
    assert load_bundle(f"{out / 'bundle'}/").manifest.figures["train"]["cpu_s"] == 1234.5


def test_the_cpu_time_of_interrupted_parts_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request, out = request_of(tmp_path, steps=4), tmp_path / "out"

    def interrupt(*_: object) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Distillation, "_gradients", interrupt)
        assert main(arguments_of(request, out)) == 130
    stored = out / "cpu_time.json"
    assert json.loads(stored.read_text())["cpu_s"] > 0
    stored.write_text('{"cpu_s": 1000.0}')
    assert main(arguments_of(request, out)) in (0, 3)
    assert 1000 < json.loads((out / "report.json").read_text())["cpu_s"] < 2000


def test_each_phase_shows_its_progress(tmp_path: Path) -> None:
    shown: list[str] = []
    (tmp_path / "out").mkdir()
    run_qat(tmp_path / "out", request_of(tmp_path, steps=2), lambda text: None, shown.append)
    for phase in (
        "scanning clip:",
        "reading clip:",
        "judge images",
        "validation images",
        "ranges: images",
        "inputs of the layers: images",
        "rounding weights: layers",
        "measuring times, onnxruntime: loads",
    ):
        assert any(text.startswith(phase) for text in shown), phase
    # Before the training, and all graphs after it.
    assert shown.count("judge images 48/48") == 4
    assert shown.index("rounding weights: layers 1/2") < shown.index("rounding weights: layers 2/2")


def test_in_mixed_precision_the_most_sensitive_layers_stay_in_fp32_and_are_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each layer in fp32 adds a tenth of the time here: the tiny graph's own times are noise."""
    monkeypatch.setattr(qat, "_refusal", lambda *_: "")
    monkeypatch.setattr(training_run, "int8_recipe", lambda *_: WITHOUT_STEM)

    def time_ratios(run: TrainingRun, model: onnx.ModelProto, other: onnx.ModelProto) -> dict[str, float]:
        int8 = sum(one.data_type == onnx.TensorProto.INT8 for one in model.graph.initializer)
        return {"onnxruntime": 1.0 - 0.1 * int8}

    monkeypatch.setattr(TrainingRun, "time_ratios", time_ratios)
    request, out = request_of(tmp_path, steps=8), tmp_path / "out"
    layers = len(ptq.layers(graph_session.folded(tmp_path / "tiny.onnx")))
    assert main([*arguments_of(request, out), "--mixed", "0.82"]) == 0
    bundle = load_bundle(f"{out / 'bundle'}/")
    assert bundle.manifest.graphs[0].precision == "mixed" and "_qat_mixed_" in bundle.name
    report = json.loads((out / "report.json").read_text())
    kept = report["figures"]["fp32_layers"]
    assert 1 <= len(kept) < layers and list(report["qualities"]) == ["PTQ, all in int8", "PTQ", "QAT"]
    trained = graph_session.load_model(out / "bundle" / "model.onnx")
    before = graph_session.folded(tmp_path / "tiny.onnx")
    weights = {node.name: node.input[1] for node in before.graph.node if node.name in kept}
    fp32 = [{one.name: one.raw_data for one in model.graph.initializer} for model in (before, trained)]
    assert weights and all(fp32[0][name] != fp32[1][name] for name in weights.values())
    assert "layers in fp32" in capsys.readouterr().out


def test_the_stem_stays_in_fp32_and_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = TrainingRun.distil

    def distil(run: TrainingRun, graph: object, groups: list[ParameterGroup], *more: object) -> object:
        trained.extend(tuple(one.shape) for one in groups[0].parameters)
        return exact(run, graph, groups, *more)  # type: ignore[arg-type]

    trained: list[tuple[int, ...]] = []
    monkeypatch.setattr(qat, "_refusal", lambda *_: "")
    monkeypatch.setattr(TrainingRun, "distil", distil)
    (tmp_path / "out").mkdir()
    report = run_qat(tmp_path / "out", request_of(tmp_path), lambda text: None, lambda text: None)
    assert report.figures["fp32_layers"] == ("first",)
    assert trained == [(8, 3, 3, 3)]
    model = graph_session.load_model(tmp_path / "out" / "bundle" / "model.onnx")
    types = {one.name: one.data_type for one in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    last = next(node for node in model.graph.node if node.name == "last")
    assert types["kernel"] == onnx.TensorProto.FLOAT
    assert types[makers[last.input[1]].input[0]] == onnx.TensorProto.INT8


def test_a_share_that_int8_does_not_satisfy_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingRun, "time_ratios", lambda *_: {"onnxruntime": 0.5})
    arguments = [*arguments_of(request_of(tmp_path), tmp_path / "out"), "--mixed"]
    assert main([*arguments, "0.3"]) == 1
    assert "satisfies, with 2% to spare, got 0.3; int8 alone takes 0.50 of it" in capsys.readouterr().err


def test_training_reduces_the_noise_on_images_that_are_not_trained_on(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    report = run_qat(tmp_path / "out", request_of(tmp_path), lambda text: None, lambda text: None)
    assert max(score for _, _, score in report.curve) > 0
    assert report.qualities["QAT"].sqnr_db > report.qualities["PTQ"].sqnr_db - 1.0


def test_a_result_below_ptq_is_refused_without_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training_run, "Quality", lambda *values: Quality(values[0], next(qualities)))
    qualities = iter([20.0, 19.0, 18.0])
    out = tmp_path / "out"
    assert main(arguments_of(request_of(tmp_path, steps=2), out)) == 3
    assert not (out / "bundle").exists()
    assert "expected at least PTQ's quality on the judge images" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops_and_keeps_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = Distillation._loss

    def loss(self: Distillation, *arguments: object) -> torch.Tensor:
        calls.append(0)
        value = exact(self, *arguments)  # type: ignore[arg-type]
        return value * float("nan") if len(calls) == 30 else value

    calls: list[int] = []
    monkeypatch.setattr(Distillation, "_loss", loss)
    (tmp_path / "out").mkdir()
    report = run_qat(tmp_path / "out", request_of(tmp_path), lambda text: None, lambda text: None)
    assert report.stopped == "the loss was nan in step 30: the best state before is kept"
    assert np.isfinite(report.qualities["QAT"].sqnr_db)
    assert len(report.curve) == 1


def test_a_stopped_run_continues_and_ends_as_one_that_was_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qat, "_refusal", lambda *_: "")
    request, (whole, parts) = request_of(tmp_path), (tmp_path / "whole", tmp_path / "parts")
    assert main(arguments_of(request, whole)) == 0
    exact = Distillation._gradients

    def gradients(self: Distillation, number: int, *arguments: object) -> float:
        if number == 33:
            raise KeyboardInterrupt
        return exact(self, number, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Distillation, "_gradients", gradients)
        assert main(arguments_of(request, parts)) == 130
    assert "stopped; the same command continues" in capsys.readouterr().err
    assert main(arguments_of(request, parts)) == 0
    graphs = [load_bundle(f"{out / 'bundle'}/").manifest.graphs[0].sha256 for out in (whole, parts)]
    assert graphs[0] == graphs[1]


def test_results_of_other_options_are_kept_unless_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request, out = request_of(tmp_path, steps=2), tmp_path / "out"
    main(arguments_of(request, out))
    report = (out / "report.json").read_bytes()
    other = arguments_of(replace(request, steps=3), out)
    assert main([*other, "--seed", "1"]) == 1
    error = capsys.readouterr().err
    assert "--steps was 2, got 3; --seed was 0, got 1. Pass the same options" in error
    assert "--batch" not in error and (out / "report.json").read_bytes() == report
    main([*other, "--restart"])
    assert json.loads((out / "report.json").read_text())["request"]["steps"] == 3


def test_options_may_change_until_there_is_a_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request, out = request_of(tmp_path, steps=2), tmp_path / "out"
    assert main(arguments_of(replace(request, videos=(str(image_folder(tmp_path / "few", 3)),)), out)) == 1
    assert "expected at least" in capsys.readouterr().err and not out.exists()
    main(arguments_of(request, out))
    assert (out / "report.json").is_file()


def test_each_sample_is_used_once_before_any_is_used_again() -> None:
    numbers = [n for step in range(5) for n in batch_numbers(10, step, 4, 0)]
    assert sorted(numbers[:10]) == sorted(numbers[10:]) == list(range(10))
    assert numbers[:10] != numbers[10:]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "no space left on the disk; free some, or pass fewer --samples"),
        (
            errno.EFBIG,
            "a file reached the size limit of this shell; raise `ulimit -f`, or pass fewer --samples",
        ),
    ],
)
def test_a_full_disk_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    expected: str,
) -> None:
    def full(*arguments: int) -> None:
        raise OSError(number, "No space left on device")

    monkeypatch.setattr("edge_vision.train.data.teacher.os.posix_fallocate", full)
    assert main(arguments_of(request_of(tmp_path), tmp_path / "out")) == 1
    assert expected in capsys.readouterr().err
    assert (tmp_path / "out" / "request.json").is_file(), "the same command continues"


def test_no_figure_may_be_worse_than_that_of_ptq() -> None:
    before = Quality(0.9, 20.0, 0.8)
    fewer_found = qat._refusal(before, Quality(0.95, 25.0, 0.7))
    assert "AP50 on reviewed images 0.800, 20.00 dB), got 0.950, 0.700, 25.00 dB" in fewer_found
    assert "agreement 0.900" in qat._refusal(before, Quality(0.89, 25.0, 0.9))
    assert "got 0.950, 0.800, 19.00 dB" in qat._refusal(before, Quality(0.95, 19.0, 0.8))
    assert "agreement 0.900" in qat._refusal(Quality(0.9, 20.0), Quality(0.8, 25.0, 0.9))
    assert qat._refusal(before, Quality(0.9, 20.0, 0.8)) == ""
    assert qat._refusal(before, Quality(0.89, 21.0, 0.8), slack=0.01) == ""
    assert "agreement 0.890" in qat._refusal(before, Quality(0.88, 21.0, 0.8), slack=0.01)
