"""The command of the optimizer on real models and clips, and what it leaves."""

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
from optimize_cases import pictures, tiny_bundle, tiny_graph

from edge_vision.backends import open_session
from edge_vision.bundles.store import load_bundle
from edge_vision.core.child_process import child_environment
from edge_vision.detect.detector import Detector
from edge_vision.optimize import command
from edge_vision.optimize.command import main
from edge_vision.optimize.report.report_file import read_report
from edge_vision.optimize.trial import LocalExecutor, Trial, TrialOutcome

QUICK = ["--measure-s", "0.2", "--pictures", "8", "--threads", "1"]
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def ssd_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real SSD, fp32 and int8, calibrated on one clip and judged on another."""
    bundle_or_skip(SSD)
    out = tmp_path_factory.mktemp("study") / "ssd"
    clips = ["--calibration", clip_or_skip("bikes.mp4"), "--frames", clip_or_skip("vtest.avi")]
    arguments = ["--precisions", "fp32", "int8", "--sizes", "native", "--backends", "onnxruntime"]
    assert (
        main(["run", SSD, *clips, *arguments, *QUICK, "--max-accuracy-loss", "0.1", "--out", str(out)]) == 0
    )
    return out


def tiny_study(tmp_path: Path, *more: str, model: Path | None = None) -> tuple[list[str], Path]:
    """Arguments of a study of a tiny classifier that takes seconds."""
    model = model or tiny_bundle(tmp_path / "bundle", tiny_graph(tmp_path / "tiny.onnx"))
    clips = [
        "--calibration",
        str(pictures(tmp_path / "a", 10, 1)),
        "--frames",
        str(pictures(tmp_path / "b", 10, 2)),
    ]
    out = tmp_path / "out"
    return ["run", str(model), *clips, *QUICK, "--backends", "onnxruntime", *more, "--out", str(out)], out


def test_the_report_has_a_row_for_each_with_all_fields(ssd_study: Path) -> None:
    report = read_report(ssd_study)
    rows = {row["id"]: row for row in report["rows"]}
    assert next(iter(rows)) == report["baseline"] == "onnxruntime-fp32-300x300-t1"
    assert {"onnxruntime-int8-300x300-t1", "onnxruntime-int8_default-300x300-t1"} < set(rows)
    fields = (
        "id backend precision size threads p50_ms p95_ms p99_ms ratio_to_parent rss_mb cold_start_s bytes"
    )
    for row in rows.values():
        assert set(f"{fields} agreement_f1 status reason".split()) <= set(row)
        assert row["status"] in ("chosen", "rejected") and row["reason"]
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] and row["rss_mb"] > 30
    assert rows[report["baseline"]]["agreement_f1"] == 1.0
    assert report["complete"] and report["chosen"] in rows
    assert re.fullmatch(r"[0-9a-f]{64}", report["hashes"]["source_graph"])
    assert set(report["hashes"]["pictures"]) == {"calibration", "tuning", "evaluation"}


def test_int8_of_the_real_ssd_agrees_and_is_a_third_of_the_size(ssd_study: Path) -> None:
    rows = {row["id"]: row for row in read_report(ssd_study)["rows"]}
    base, int8 = rows["onnxruntime-fp32-300x300-t1"], rows["onnxruntime-int8-300x300-t1"]
    naive = rows["onnxruntime-int8_default-300x300-t1"]
    assert base["bytes"] / int8["bytes"] > 3.4
    assert int8["agreement_f1"] > 0.95 and int8["agreement_f1"] > naive["agreement_f1"]
    assert abs(int8["saturation_db"]) < 1.0
    assert int8["quantized"]["layers_run_as_int8"] == 88


def test_the_bundle_is_verified_and_finds_what_the_row_says(ssd_study: Path) -> None:
    report = read_report(ssd_study)
    bundle = load_bundle(str(ssd_study / "bundle"))
    chosen = next(row for row in report["rows"] if row["id"] == report["chosen"])
    assert bundle.manifest.graphs[0].sha256 == chosen["graph_sha256"]
    assert bundle.manifest.figures["optimize"]["id"] == report["chosen"]
    session, _ = open_session(bundle, "onnxruntime")
    detector = Detector.from_bundle(bundle, session)
    from edge_vision.core.frame import Frame
    from edge_vision.optimize.agreement import read_detections
    from edge_vision.optimize.clips import stored

    judged = read_detections(ssd_study / "found" / f"{report['chosen']}.npz")
    for picture, wanted in zip(stored(ssd_study / "pictures" / "evaluation"), judged, strict=True):
        assert len(detector.detect(Frame(picture, 0, "", "bgr8")).detections) == len(wanted)


def test_the_ladder_and_the_parameters_name_what_is_there(ssd_study: Path) -> None:
    rungs = yaml.safe_load((ssd_study / "ladder.yaml").read_text())
    assert rungs[0]["bundle"] == "bundle" and len(rungs) >= 1
    for rung in rungs:
        load_bundle(str(ssd_study / rung["bundle"]))
    values = yaml.safe_load((ssd_study / "params.yaml").read_text())["/**/detector"]["ros__parameters"]
    assert load_bundle(values["model"]).folder == ssd_study / "bundle"
    assert values["backend"] == "onnxruntime" and values["threads"] == 1


def test_the_page_needs_nothing_else(ssd_study: Path) -> None:
    page = (ssd_study / "report.html").read_text()
    assert page.count("<svg") >= 1 and "onnxruntime-int8_default-300x300-t1" in page
    assert "data:image/jpeg;base64," in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page) and "<script" not in page


def test_explain_tells_why(ssd_study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(ssd_study), "onnxruntime-int8-300x300-t1"]) == 0
    text = capsys.readouterr().out
    assert "why: " in text and "saturation: " in text and "layers run as int8 88" in text
    assert main(["explain", str(ssd_study), "onnxruntime-int8-300x300-t9"]) == 1
    assert "did you mean 'onnxruntime-int8-300x300-t1'" in capsys.readouterr().err


def test_report_writes_the_page_anew(ssd_study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (ssd_study / "report.html").read_text()
    (ssd_study / "report.html").unlink()
    assert main(["report", str(ssd_study)]) == 0
    assert (ssd_study / "report.html").read_text() == before
    assert "chosen: " in capsys.readouterr().out


def test_a_second_run_measures_nothing_again(ssd_study: Path) -> None:
    report = read_report(ssd_study)
    stamps = {file: file.stat().st_mtime_ns for file in (ssd_study / "jobs").iterdir()}
    assert main(["resume", str(ssd_study)]) == 0
    assert {file: file.stat().st_mtime_ns for file in (ssd_study / "jobs").iterdir()} == stamps
    assert read_report(ssd_study)["rows"] == report["rows"]


def test_after_a_ctrl_c_it_goes_on(tmp_path: Path) -> None:
    arguments, out = tiny_study(tmp_path, "--sizes", "native", "96")
    command = [sys.executable, "-m", "edge_vision", "optimize", *arguments]
    child = subprocess.Popen(command, env=child_environment(), stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not list(out.glob("jobs/*fp16*.job")) and time.monotonic() < until and child.poll() is None:
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    assert "go on with: optimize resume" in child.communicate(timeout=60)[1]
    assert child.returncode == 130
    partial = read_report(out)
    assert not partial["complete"] and partial["rows"][0]["status"] != "failed"
    kept = {file.name: file.read_bytes() for file in out.glob("jobs/*.outcome")}
    assert main(["resume", str(out)]) in (0, 3)
    report = read_report(out)
    assert report["complete"] and len(report["rows"]) > len(partial["rows"])
    assert all((out / "jobs" / name).read_bytes() == data for name, data in kept.items())


def test_a_folder_with_results_is_not_run_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, out = tiny_study(tmp_path, "--precisions", "fp32")
    assert main(arguments) == 0
    assert main(arguments) == 1
    assert f"`optimize resume {out}` goes on" in capsys.readouterr().err


def test_a_budget_that_nobody_meets_tells_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, out = tiny_study(tmp_path, "--precisions", "fp32", "fp16", "--budget-ms", "0.0001")
    assert main(arguments) == 3
    assert "nothing holds the bounds; the nearest is onnxruntime-" in capsys.readouterr().out
    assert not (out / "bundle").exists() and not (out / "params.yaml").exists()
    report = read_report(out)
    assert report["chosen"] is None and "the budget is 0.0001 ms" in report["decision"]["misses"][0]


class Impatient(LocalExecutor):
    """Gives a job that reads int8's ranges three seconds, and a pipe that nobody fills in their place."""

    def run(self, job: Trial, folder: Path, timeout_s: float) -> TrialOutcome:
        ranges = "ranges/64x64.json"
        if ranges not in job.text:
            return super().run(job, folder, timeout_s)
        (folder / ranges).parent.mkdir(exist_ok=True)
        if not (folder / ranges).exists():
            os.mkfifo(folder / ranges)
        return super().run(job, folder, 3.0)


def test_a_candidate_that_hangs_is_recorded_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "LocalExecutor", Impatient)
    arguments, out = tiny_study(tmp_path, "--precisions", "fp32", "int8", "--sizes", "native")
    assert main(arguments) == 0
    report = read_report(out)
    rows = {row["id"]: row for row in report["rows"]}
    assert rows["onnxruntime-int8-64x64-t1"]["status"] == "failed"
    assert "timeout: took longer than 3 s" in rows["onnxruntime-int8-64x64-t1"]["reason"]
    # Which of the others is the faster one is a matter of the moment.
    others = ["onnxruntime-fp32-64x64-t1", "onnxruntime-int8_default-64x64-t1"]
    assert report["chosen"] in others and rows[report["chosen"]]["status"] == "chosen"
    assert {rows[name]["status"] for name in others} <= {"chosen", "rejected"}


@pytest.mark.parametrize(
    ("op", "head", "labels", "told"),
    [
        ("Sparkle", "classifier", 4, "Sparkle"),
        ("Conv", "end_to_end", 4, "head 'end_to_end' expects rows"),
        ("Conv", "classifier", 7, ", 7]"),
        ("Conv", "nonsense", 4, "expected head.type to be one of"),
    ],
    ids=["unknown operator", "wrong head", "labels of another list", "no head"],
)
def test_a_model_that_does_not_run_ends_it_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], op: str, head: str, labels: int, told: str
) -> None:
    model = tiny_bundle(tmp_path / "bundle", tiny_graph(tmp_path / "x.onnx", op), head, labels)
    arguments, _ = tiny_study(tmp_path, model=model)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "the fp32 model does not run on onnxruntime" in error and told in error


def test_open_dimensions_are_fixed_to_the_manifests_size(tmp_path: Path) -> None:
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
    ("change", "told"),
    [
        (["--precisions", "int4"], "precisions: expected some of fp32"),
        (["--backends", "tflite"], "backends: expected some of onnxruntime"),
        (["--max-accuracy-loss", "1.5"], "max_accuracy_loss: expected 0 to below 1"),
        (["--budget-ms", "-1"], "budget_ms: expected more than 0"),
        (["--threads", "0"], "threads: expected 1 to 256"),
        (["--pictures", "1"], "pictures: expected 8 or more"),
        (["--sizes", "7"], "sizes: expected native"),
    ],
)
def test_wrong_options_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], told: str
) -> None:
    arguments, _ = tiny_study(tmp_path, *change)
    assert main(arguments) == 1
    assert told in capsys.readouterr().err


def test_int8_without_a_clip_to_calibrate_on_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_bundle(tmp_path / "bundle", tiny_graph(tmp_path / "tiny.onnx"))
    clip = str(pictures(tmp_path / "a", 10))
    run = ["run", str(model), "--frames", clip, *QUICK, "--out", str(tmp_path / "out")]
    assert main([*run, "--precisions", "int8"]) == 1
    assert "expected a clip to calibrate on" in capsys.readouterr().err


def test_the_same_clip_on_both_sides_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, _ = tiny_study(tmp_path)
    arguments[arguments.index("--calibration") + 1] = arguments[arguments.index("--frames") + 1]
    assert main(arguments) == 1
    assert "show the same pictures" in capsys.readouterr().err


def test_a_folder_of_something_else_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["resume", str(tmp_path)], ["report", str(tmp_path)], ["explain", str(tmp_path), "x"]):
        assert main(words) == 1
        assert f"{tmp_path}: expected a folder" in capsys.readouterr().err


def test_a_real_classifier_has_a_resolution_ladder(tmp_path: Path) -> None:
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
    rows = {row["size"]: row for row in read_report(out)["rows"]}
    assert rows["224x224"]["agreement_top1"] == 1.0 and rows["224x224"]["agreement_f1"] is None
    assert rows["128x128"]["agreement_top1"] < 0.95 and rows["128x128"]["of"] == 32
    assert rows["128x128"]["relative"] < 0.7
    assert "/**/cascade" in yaml.safe_load((out / "params.yaml").read_text())
    assert np.isclose(rows["128x128"]["bytes"], rows["224x224"]["bytes"], rtol=0.01)


def test_a_tflite_graph_is_measured_beside_the_onnx_one(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    bundle_or_skip(OIDV4)
    more = ["--precisions", "fp32", "--sizes", "native", "--backends", "litert", "onnxruntime"]
    out = tmp_path / "out"
    assert main(["run", OIDV4, "--frames", clip_or_skip("bikes.mp4"), *more, *QUICK, "--out", str(out)]) == 0
    report = read_report(out)
    rows = {row["id"]: row for row in report["rows"]}
    assert report["baseline"] == "onnxruntime-fp32-300x300-t1"
    row = rows["litert-fp32-300x300-t1"]
    assert row["actual"]["backend"] == "litert" and row["agreement_f1"] > 0.9 and row["of"] > 5
    assert row["bytes"] < 0.6 * rows[report["baseline"]]["bytes"]
    made = load_bundle(str(out / "bundle"))
    assert made.manifest.graphs[0].format == ("tflite" if report["chosen"] == row["id"] else "onnx")


def test_litert_without_a_tflite_graph_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, _ = tiny_study(tmp_path)
    arguments[arguments.index("onnxruntime")] = "litert"
    assert main(arguments) == 1
    assert "litert: the bundle has no tflite graph" in capsys.readouterr().err


def test_an_onnx_file_is_imported(tmp_path: Path) -> None:
    bundle = bundle_or_skip(SSD)
    file = tmp_path / "mine.onnx"
    file.write_bytes((bundle.folder / "model.onnx").read_bytes())
    clip = clip_or_skip("vtest.avi")
    more = ["--precisions", "fp32", "--backends", "onnxruntime", "--sizes", "native"]
    assert main(["run", str(file), "--frames", clip, *more, *QUICK, "--out", str(tmp_path / "out")]) == 0
    made = load_bundle(str(tmp_path / "out" / "bundle"))
    assert made.manifest.head.type == "ssd" and made.manifest.name.startswith("mine_")
    assert read_report(tmp_path / "out")["rows"][0]["of"] > 20


@pytest.mark.parametrize(
    ("name", "told"),
    [("net.pt", "can hold code"), ("net.tflite", "quantizes ONNX graphs"), ("x.onnx", "nothing there")],
)
def test_a_file_of_another_kind_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, told: str
) -> None:
    if name != "x.onnx":
        (tmp_path / name).write_bytes(b"any")
    arguments, _ = tiny_study(tmp_path, model=tmp_path / name)
    assert main(arguments) == 1
    assert told in capsys.readouterr().err
