"""The command `optimize` on real models and clips, and its output."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from model_cases import EFFICIENTNET, OIDV4, SSD, bundle_or_skip, clip_or_skip
from optimize_cases import image_folder, tiny_bundle, tiny_graph

from edge_vision.backends import open_session
from edge_vision.bundles.ladder import read_ladder
from edge_vision.bundles.store import load_bundle
from edge_vision.core.child_process import child_environment
from edge_vision.core.frame import Frame
from edge_vision.detect.detector import Detector
from edge_vision.optimize import command
from edge_vision.optimize.agreement import read_detections
from edge_vision.optimize.command import main
from edge_vision.optimize.data.clips import read_images
from edge_vision.optimize.processor import cpu_flags
from edge_vision.optimize.quantization.int8_recipe import int8_recipe
from edge_vision.optimize.report.report_file import StudyReport, read_report
from edge_vision.optimize.results import CandidateResult
from edge_vision.optimize.trials.executor import LocalExecutor, Result, Trial, TrialOutcome

QUICK = ["--measure-s", "0.2", "--images", "8", "--threads", "1"]
pytestmark = pytest.mark.timeout(600)

INT8_LAYERS = 85 if int8_recipe("onnxruntime", cpu_flags()).fp32_stem else 88
"""Of the SSD, whose stem has three layers."""


@pytest.fixture(scope="module")
def ssd_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real SSD, fp32 and int8, calibrated on one clip and evaluated on another."""
    bundle_or_skip(SSD)
    out = tmp_path_factory.mktemp("study") / "ssd"
    clips = ["--calibration", clip_or_skip("bikes.mp4"), "--frames", clip_or_skip("vtest.avi")]
    arguments = ["--precisions", "fp32", "int8", "--sizes", "native", "--backends", "onnxruntime"]
    assert (
        main(["run", SSD, *clips, *arguments, *QUICK, "--max-accuracy-loss", "0.1", "--out", str(out)]) == 0
    )
    return out


def tiny_study(tmp_path: Path, *more: str, model: Path | None = None) -> tuple[list[str], Path]:
    """Arguments of a study of a tiny classifier that takes seconds, and its folder."""
    model = model or tiny_bundle(tmp_path / "bundle", tiny_graph(tmp_path / "tiny.onnx"))
    clips = [
        "--calibration",
        str(image_folder(tmp_path / "a", 10, 1)),
        "--frames",
        str(image_folder(tmp_path / "b", 10, 2)),
    ]
    out = tmp_path / "out"
    return ["run", str(model), *clips, *QUICK, "--backends", "onnxruntime", *more, "--out", str(out)], out


def chosen_of(report: StudyReport) -> CandidateResult:
    assert report.decision.chosen is not None
    return report.result(report.decision.chosen)


def test_the_report_has_a_complete_result_for_each_candidate(ssd_study: Path) -> None:
    report = read_report(ssd_study)
    ids = [one.id for one in report.results]
    assert ids[0] == report.baseline == "onnxruntime-fp32-300x300-t1"
    assert {"onnxruntime-int8-300x300-t1", "onnxruntime-int8_default-300x300-t1"} < set(ids)
    for one in report.results:
        timing = one.measured.timing
        assert one.status in ("chosen", "rejected") and one.reason and one.file_bytes
        assert 0 < timing.p50_ms <= timing.p95_ms <= timing.p99_ms and one.measured.rss_mb > 30
    assert report.results[0].agreement == 1.0
    assert report.results[0].measured.agreement.metric == "f1"
    assert report.complete and report.decision.chosen in ids
    assert re.fullmatch(r"[0-9a-f]{64}", report.model.sha256)
    assert report.dataset.calibration and report.dataset.tuning and report.dataset.evaluation


def test_int8_of_the_real_ssd_agrees_and_is_a_third_of_the_size(ssd_study: Path) -> None:
    report = read_report(ssd_study)
    baseline = report.result(report.baseline)
    int8 = report.result("onnxruntime-int8-300x300-t1")
    default = report.result("onnxruntime-int8_default-300x300-t1")
    assert baseline.file_bytes / int8.file_bytes > 3.4
    assert int8.agreement > 0.95 and int8.agreement > default.agreement
    assert abs(int8.measured.saturation_db or 0.0) < 1.0
    assert int8.graph and int8.graph.quantization
    assert int8.graph.quantization.layers_run_as_int8 == INT8_LAYERS


def test_the_bundle_is_verified_and_predicts_as_measured(ssd_study: Path) -> None:
    report = read_report(ssd_study)
    bundle = load_bundle(str(ssd_study / "bundle"))
    chosen = chosen_of(report)
    assert chosen.graph and bundle.manifest.graphs[0].sha256 == chosen.graph.sha256
    assert bundle.manifest.figures["optimize"]["id"] == chosen.id
    session, _ = open_session(bundle, "onnxruntime")
    detector = Detector.from_bundle(bundle, session)
    measured = read_detections(ssd_study / "predictions" / f"{chosen.id}.npz")
    for image, wanted in zip(read_images(ssd_study / "images" / "evaluation"), measured, strict=True):
        assert len(detector.detect(Frame(image, 0, "", "bgr8")).detections) == len(wanted)


def test_the_ladder_and_the_parameters_name_existing_bundles(ssd_study: Path) -> None:
    rungs = yaml.safe_load((ssd_study / "ladder.yaml").read_text())
    assert rungs[0]["bundle"] == "bundle" and len(rungs) >= 1
    for rung, read in zip(rungs, read_ladder(ssd_study / "ladder.yaml"), strict=True):
        load_bundle(str(ssd_study / rung["bundle"]))
        assert read.model == str(ssd_study / rung["bundle"]) and read.relative == rung["relative"]
    values = yaml.safe_load((ssd_study / "params.yaml").read_text())["/**/detector"]["ros__parameters"]
    assert load_bundle(values["model"]).folder == ssd_study / "bundle"
    assert values["backend"] == "onnxruntime" and values["threads"] == 1


def test_the_page_is_self_contained(ssd_study: Path) -> None:
    page = (ssd_study / "report.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 2 and "onnxruntime-int8_default-300x300-t1" in page
    assert "data:image/jpeg;base64," in page
    assert not re.findall(r"""(?:src|srcset|href)=["'](?!data:)""", page) and "<script" not in page


def test_explain_states_the_reason(ssd_study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(ssd_study), "onnxruntime-int8-300x300-t1"]) == 0
    text = capsys.readouterr().out
    assert "why: " in text and "saturation: " in text and f"layers run as int8 {INT8_LAYERS}" in text
    assert main(["explain", str(ssd_study), "onnxruntime-int8-300x300-t9"]) == 1
    assert "did you mean 'onnxruntime-int8-300x300-t1'" in capsys.readouterr().err


def test_report_rewrites_the_page(ssd_study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (ssd_study / "report.html").read_text()
    (ssd_study / "report.html").unlink()
    assert main(["report", str(ssd_study)]) == 0
    assert (ssd_study / "report.html").read_text() == before
    assert "chosen: " in capsys.readouterr().out


def test_resuming_a_complete_study_measures_nothing(ssd_study: Path) -> None:
    report = read_report(ssd_study)
    stamps = {file: file.stat().st_mtime_ns for file in (ssd_study / "trials").iterdir()}
    assert main(["resume", str(ssd_study)]) == 0
    assert {file: file.stat().st_mtime_ns for file in (ssd_study / "trials").iterdir()} == stamps
    assert read_report(ssd_study).results == report.results


def test_a_study_continues_after_ctrl_c(tmp_path: Path) -> None:
    arguments, out = tiny_study(tmp_path, "--precisions", "fp32", "fp16", "--sizes", "native", "96")
    command = [sys.executable, "-m", "edge_vision", "optimize", *arguments]
    child = subprocess.Popen(command, env=child_environment(), stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not list(out.glob("trials/*fp16*.trial")) and time.monotonic() < until and child.poll() is None:
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    assert "continue with: optimize resume" in child.communicate(timeout=60)[1]
    assert child.returncode == 130
    partial = read_report(out)
    assert not partial.complete and partial.results[0].status != "failed"
    kept = {file.name: file.read_bytes() for file in out.glob("trials/*.outcome")}
    assert main(["resume", str(out)]) in (0, 3)
    report = read_report(out)
    assert report.complete and len(report.results) > len(partial.results)
    assert all((out / "trials" / name).read_bytes() == data for name, data in kept.items())


def test_a_folder_with_results_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, out = tiny_study(tmp_path, "--precisions", "fp32")
    assert main(arguments) == 0
    assert main(arguments) == 1
    assert f"`optimize resume {out}` continues it" in capsys.readouterr().err


def test_the_nearest_candidate_is_reported_if_none_is_within_the_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, out = tiny_study(tmp_path, "--precisions", "fp32", "fp16", "--budget-ms", "0.0001")
    assert main(arguments) == 3
    assert "no candidate satisfies the bounds; the nearest is onnxruntime-" in capsys.readouterr().out
    assert not (out / "bundle").exists() and not (out / "params.yaml").exists()
    report = read_report(out)
    assert report.decision.chosen is None and "budget of 0.0001 ms" in report.decision.misses[0]


class HangingInt8(LocalExecutor):
    """Gives trials that read int8's ranges a pipe without a writer instead, and three seconds."""

    def run(self, trial: Trial[Result], folder: Path, timeout_s: float) -> TrialOutcome[Result]:
        ranges = "ranges/64x64.json"
        if ranges not in trial.to_json():
            return super().run(trial, folder, timeout_s)
        (folder / ranges).parent.mkdir(exist_ok=True)
        if not (folder / ranges).exists():
            os.mkfifo(folder / ranges)
        return super().run(trial, folder, 3.0)


def test_a_candidate_that_hangs_fails_and_the_study_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "LocalExecutor", HangingInt8)
    arguments, out = tiny_study(tmp_path, "--precisions", "fp32", "int8", "--sizes", "native")
    assert main(arguments) == 0
    report = read_report(out)
    hanging = report.result("onnxruntime-int8-64x64-t1")
    assert hanging.status == "failed" and "timeout: exceeded the time limit of 3 s" in hanging.reason
    # Either of the others may be the faster one.
    others = [report.result(f"onnxruntime-{name}-64x64-t1") for name in ("fp32", "int8_default")]
    assert chosen_of(report) in others and chosen_of(report).status == "chosen"
    assert {one.status for one in others} <= {"chosen", "rejected"}


@pytest.mark.parametrize(
    ("op", "head", "labels", "message"),
    [
        ("Sparkle", "classifier", 4, "Sparkle"),
        ("Conv", "end_to_end", 4, "head 'end_to_end' expects rows"),
        ("Conv", "classifier", 7, ", 7]"),
        ("Conv", "nonsense", 4, "expected head.type to be one of"),
    ],
    ids=["unknown operator", "wrong head", "labels of another list", "no head"],
)
def test_a_model_that_does_not_run_is_an_error_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], op: str, head: str, labels: int, message: str
) -> None:
    model = tiny_bundle(tmp_path / "bundle", tiny_graph(tmp_path / "x.onnx", op), head, labels)
    arguments, _ = tiny_study(tmp_path, model=model)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "the fp32 model does not run on onnxruntime" in error and message in error


def test_dynamic_dimensions_are_fixed_to_the_size_of_the_manifest(tmp_path: Path) -> None:
    import onnx

    file = tiny_graph(tmp_path / "open.onnx")
    model = onnx.load(file)
    for at, name in ((0, "n"), (2, "h"), (3, "w")):
        model.graph.input[0].type.tensor_type.shape.dim[at].dim_param = name
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(model, file)
    arguments, out = tiny_study(
        tmp_path, "--precisions", "fp32", model=tiny_bundle(tmp_path / "bundle", file)
    )
    assert main(arguments) == 0
    made = onnx.load(out / "source" / "model.onnx").graph
    assert [dim.dim_value for dim in made.input[0].type.tensor_type.shape.dim] == [1, 3, 64, 64]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--precisions", "int4"], "precisions: expected some of fp32"),
        (["--backends", "tflite"], "backends: expected some of onnxruntime"),
        (["--max-accuracy-loss", "1.5"], "max_accuracy_loss: expected 0 to below 1"),
        (["--budget-ms", "-1"], "budget_ms: expected more than 0"),
        (["--threads", "0"], "threads: expected 1 to 256"),
        (["--images", "1"], "images: expected 8 or more"),
        (["--sizes", "7"], "sizes: expected native"),
        (["--device", "ssh://-l@robot"], "device: expected local or ssh://HOST"),
        (["--device", "ssh://robot/a/b", "--device", "ssh://robot/a-b"], "devices: expected each once"),
        (["--device", "local", "--executor", "ray"], "--device: expected --executor local with it"),
        (["--address", "robot:6379"], "--address robot:6379: expected --executor ray with it"),
    ],
)
def test_invalid_options_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    arguments, out = tiny_study(tmp_path, *change)
    assert main(arguments) == 2 and not out.exists()
    assert message in capsys.readouterr().err


def test_int8_without_a_calibration_clip_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_bundle(tmp_path / "bundle", tiny_graph(tmp_path / "tiny.onnx"))
    clip = str(image_folder(tmp_path / "a", 10))
    run = ["run", str(model), "--frames", clip, *QUICK, "--out", str(tmp_path / "out")]
    assert main([*run, "--precisions", "int8"]) == 1
    assert "expected a calibration clip" in capsys.readouterr().err


def test_the_same_clip_on_both_sides_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, _ = tiny_study(tmp_path)
    arguments[arguments.index("--calibration") + 1] = arguments[arguments.index("--frames") + 1]
    assert main(arguments) == 1
    assert "contain the same images" in capsys.readouterr().err


def test_a_folder_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["resume", str(tmp_path)], ["report", str(tmp_path)], ["explain", str(tmp_path), "x"]):
        assert main(arguments) == 1
        assert f"{tmp_path}: expected a folder" in capsys.readouterr().err


def test_a_real_classifier_is_measured_at_smaller_sizes(tmp_path: Path) -> None:
    bundle_or_skip(EFFICIENTNET)
    clips = ["--calibration", clip_or_skip("bikes.mp4"), "--frames", clip_or_skip("vtest.avi")]
    more = [
        "--precisions",
        "fp32",
        "--sizes",
        "native",
        "128",
        "--backends",
        "onnxruntime",
        "--max-accuracy-loss",
        "0.9",
    ]
    out = tmp_path / "out"
    assert main(["run", EFFICIENTNET, *clips, *more, *QUICK, "--out", str(out)]) == 0
    results = {one.size: one for one in read_report(out).results}
    native, small = results["224x224"], results["128x128"]
    assert native.agreement == 1.0 and native.measured.agreement.metric == "top1"
    assert small.agreement < 0.95 and small.measured.agreement.total == 32
    assert small.relative < 0.7
    assert "/**/cascade" in yaml.safe_load((out / "params.yaml").read_text())
    assert np.isclose(small.file_bytes, native.file_bytes, rtol=0.01)


def test_a_tflite_graph_is_measured_beside_the_onnx_one(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    bundle_or_skip(OIDV4)
    more = ["--precisions", "fp32", "--sizes", "native", "--backends", "litert", "onnxruntime"]
    out = tmp_path / "out"
    assert main(["run", OIDV4, "--frames", clip_or_skip("bikes.mp4"), *more, *QUICK, "--out", str(out)]) == 0
    report = read_report(out)
    assert report.baseline == "onnxruntime-fp32-300x300-t1"
    litert = report.result("litert-fp32-300x300-t1")
    assert litert.measured.actual["backend"] == "litert"
    assert litert.agreement > 0.9 and litert.measured.agreement.total > 5
    assert litert.file_bytes < 0.6 * report.result(report.baseline).file_bytes
    made = load_bundle(str(out / "bundle"))
    assert made.manifest.graphs[0].format == ("tflite" if chosen_of(report) == litert else "onnx")


def test_a_bundle_without_a_tflite_graph_is_converted_for_litert(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    arguments, out = tiny_study(tmp_path, "--precisions", "fp32", "int8", "--sizes", "native")
    arguments.insert(arguments.index("onnxruntime"), "litert")
    assert main(arguments) == 0
    report = read_report(out)
    rows = {one.precision: one for one in report.results if one.backend == "litert"}
    assert set(rows) == {"fp32", "int8"}
    assert all(one.measured.actual["provider"] == "XNNPACK" for one in rows.values())
    assert rows["fp32"].agreement == 1.0 and rows["int8"].parent == rows["fp32"].id
    assert load_bundle(f"{out / rows['int8'].folder}/").manifest.graphs[0].format == "tflite"


def test_an_onnx_file_is_imported(tmp_path: Path) -> None:
    bundle = bundle_or_skip(SSD)
    file = tmp_path / "mine.onnx"
    file.write_bytes((bundle.folder / "model.onnx").read_bytes())
    clip = clip_or_skip("vtest.avi")
    more = ["--precisions", "fp32", "--backends", "onnxruntime", "--sizes", "native"]
    assert main(["run", str(file), "--frames", clip, *more, *QUICK, "--out", str(tmp_path / "out")]) == 0
    made = load_bundle(str(tmp_path / "out" / "bundle"))
    assert made.manifest.head.type == "ssd" and made.manifest.name.startswith("mine_")
    assert read_report(tmp_path / "out").results[0].measured.agreement.total > 20


@pytest.mark.parametrize(
    ("name", "message"),
    [("net.pt", "can contain code"), ("net.tflite", "quantizes ONNX graphs"), ("x.onnx", "no such file")],
)
def test_a_file_of_another_kind_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    if name != "x.onnx":
        (tmp_path / name).write_bytes(b"any")
    arguments, _ = tiny_study(tmp_path, model=tmp_path / name)
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
