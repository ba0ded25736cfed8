"""Results of `optimize train` as rows of the optimizer's table."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from optimize_cases import SIDE_PX, image_folder, tiny_bundle, tiny_graph

from edge_vision.bundles.ladder import read_ladder
from edge_vision.bundles.manifest import GraphSpec
from edge_vision.bundles.store import load_bundle
from edge_vision.offline.bundle_folder import write_folder
from edge_vision.offline.output_folder import claim_folder
from edge_vision.optimize import device, study
from edge_vision.optimize.agreement import agreement, read_detections, rename_classes
from edge_vision.optimize.command import main
from edge_vision.optimize.quantization import ptq
from edge_vision.optimize.quantization.int8_recipe import Int8Recipe
from edge_vision.optimize.report.report_file import read_report
from edge_vision.optimize.trained import TRAINING_COMMAND, trained_bundles

RECIPE = Int8Recipe("u8", "s8", True, False, "")
LABELS = [b"thing 0\n", b"thing 1\n", b"thing 2\n", b"thing 3\n"]


def trained_result(folder: Path, labels: str = "") -> Path:
    """A folder as `optimize train qat` leaves it. labels: others than those of the model."""
    bundle = load_bundle(f"{tiny_bundle(folder.with_name('made'), tiny_graph(folder.with_name('t.onnx')))}/")
    figures = {"train": {"request": {"recipe": "qat", "seed": 7}, "parent_sha256": "0" * 64}}
    graph = bundle.manifest.graphs[0]
    files = {
        graph.file: bundle.verify(graph).read_bytes(),
        "labels.txt": labels.encode() or (bundle.folder / "labels.txt").read_bytes(),
    }
    folder.mkdir()
    write_folder(folder / "bundle", replace(bundle.manifest, figures=figures), files)
    return folder


def arguments(tmp_path: Path, trained: Path) -> list[str]:
    model = tiny_bundle(tmp_path / "bundle", tiny_graph(tmp_path / "tiny.onnx"))
    clips = ["--calibration", str(image_folder(tmp_path / "a", 10, 1))]
    clips += ["--frames", str(image_folder(tmp_path / "b", 10, 2))]
    quick = ["--measure-s", "0.2", "--images", "8", "--threads", "1", "--backends", "onnxruntime"]
    more = ["--precisions", "fp32", "--sizes", "native", "--trained", str(trained)]
    return ["run", str(model), *clips, *quick, *more, "--out", str(tmp_path / "out")]


def test_a_trained_bundle_is_a_row_with_its_lineage(tmp_path: Path) -> None:
    assert main(arguments(tmp_path, trained_result(tmp_path / "qat"))) == 0
    report = read_report(tmp_path / "out")
    (row,) = [one for one in report.results if one.trained]
    assert row.id == "onnxruntime-qat-fp32-64x64-t1" and row.trained == "qat"
    assert row.agreement == 1.0 and row.file_bytes > 0 and row.relative > 0
    for rung in read_ladder(tmp_path / "out" / "ladder.yaml"):
        figures = load_bundle(f"{rung.model}/").manifest.figures
        of_row = figures["optimize"]["id"] == row.id
        assert ("train" in figures) == of_row
        assert not of_row or figures["train"]["request"]["seed"] == 7


def test_a_refused_result_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(arguments(tmp_path, tmp_path / "empty")) == 1
    assert "got one without a bundle; was it refused?" in capsys.readouterr().err


def test_a_folder_around_trainings_names_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "auto" / "study" / "bundle").mkdir(parents=True)
    for file in ("bundle/bundle.yaml", "params.yaml"):
        (tmp_path / "auto" / "study" / file).touch()
    result = trained_result(tmp_path / "auto" / "qat")
    assert main(arguments(tmp_path, tmp_path / "auto")) == 1
    assert f"got one around several: pass {result}" in capsys.readouterr().err.replace("\n", " ")


def test_the_int8_graph_of_a_bundle_is_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the optimizer's own int8, so that neither is chosen unseen."""
    given = arguments(tmp_path, trained_result(tmp_path / "qat"))
    bundle = load_bundle(f"{given[1]}/")
    file, tensors = tmp_path / "tiny.onnx", [np.zeros((1, 3, SIDE_PX, SIDE_PX), np.float32)]
    model = onnx.load(file)
    data = ptq.quantize(model, ptq.calibrate(model, tensors), RECIPE).SerializeToString()
    int8 = GraphSpec("int8.onnx", "onnx", "int8", hashlib.sha256(data).hexdigest())
    files = {"model.onnx": file.read_bytes(), "int8.onnx": data, "labels.txt": b"".join(LABELS)}
    shutil.rmtree(bundle.folder)
    write_folder(bundle.folder, replace(bundle.manifest, graphs=(*bundle.manifest.graphs, int8)), files)
    given = [one for one in given if one not in ("--trained", str(tmp_path / "qat"), "--precisions", "fp32")]
    assert main(given) == 0
    rows = {one.id: one for one in read_report(tmp_path / "out").results}
    shipped = rows["onnxruntime-shipped-int8-64x64-t1"]
    assert shipped.measurement and "onnxruntime-int8-64x64-t1" in rows
    copy = load_bundle(f"{tmp_path / 'out' / shipped.folder}/")
    assert copy.verify(copy.manifest.graphs[0]).read_bytes() == data
    report = tmp_path / "out" / "report.json"
    report.write_text(report.read_text()[:300])
    assert main(["resume", str(tmp_path / "out")]) == 0 and read_report(tmp_path / "out").complete
    (tmp_path / "bundle" / "int8.onnx").write_bytes(b"damaged")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(study, "this_device", lambda: replace(device.this_device(), cores=999))
        assert main(["resume", str(tmp_path / "out")]) == 1
    assert "got " in (
        error := capsys.readouterr().err
    ) and "with 999 cores: `optimize report" in error.replace("\n", " ")
    assert main([*given[:-1], str(tmp_path / "again"), "--precisions", "fp32", "int8"]) == 0
    assert "its own int8 graph is left out" in capsys.readouterr().out
    assert not [one for one in read_report(tmp_path / "again").results if one.trained]


def test_a_missing_folder_of_a_training_is_a_wrong_argument(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path, tmp_path / "missing")) == 2
    assert "--trained: expected a folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unknown_labels_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = trained_result(tmp_path / "qat", "thing 0\nthing 1\nthing 2\nunicorn\n")
    assert main(arguments(tmp_path, result)) == 1
    assert "labels, got classify, with unicorn" in capsys.readouterr().err


def test_fewer_classes_are_compared_with_their_own_boxes(tmp_path: Path) -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    scores, file, reference = np.ones(2, np.float32), tmp_path / "ours.npz", tmp_path / "reference.npz"

    def write(path: Path, count: int, ids: list[int]) -> None:
        arrays = {"0.boxes": boxes[:count], "0.scores": scores[:count], "0.ids": np.array(ids, np.int32)}
        np.savez(path, **arrays)

    write(reference, 2, [7, 3])
    write(file, 1, [0])
    rename_classes(file, (7,))
    assert read_detections(file)[0].class_ids.tolist() == [7]
    assert agreement("detect", file, reference, (7,)).value == 1.0
    assert agreement("detect", file, reference).value < 1.0


def test_the_bundle_of_a_training_is_not_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = trained_result(tmp_path / "qat")
    assert main(arguments(tmp_path, result / "bundle")) == 1
    assert "got a bundle: pass the folder around it" in capsys.readouterr().err


def test_the_corrected_command_takes_the_same_folder(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    wrong = trained_result(tmp_path / "other" / "wrong", "thing 0\nthing 1\nthing 2\nunicorn\n")
    given = arguments(tmp_path, trained_result(tmp_path / "right"))
    assert main([*given, "--trained", str(wrong)]) == 1
    assert main(given) == 0
    assert read_report(tmp_path / "out").results


@pytest.mark.parametrize("command", [["report"], ["explain"]], ids=["report", "explain"])
def test_the_folder_of_a_training_is_no_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    claim_folder(tmp_path / "qat", TRAINING_COMMAND)
    assert main([*command, str(tmp_path / "qat"), *["any"] * (command == ["explain"])]) == 1
    assert "got one of a training" in capsys.readouterr().err


@pytest.mark.parametrize(
    "train", ["x", {}, {"request": None}, {"request": {"recipe": "../x y"}}, {"request": {"recipe": 3}}]
)
def test_an_edited_lineage_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], train: object
) -> None:
    result = trained_result(tmp_path / "qat")
    bundle = load_bundle(f"{result / 'bundle'}/")
    files = {
        name: (bundle.folder / name).read_bytes() for name in (bundle.manifest.graphs[0].file, "labels.txt")
    }
    shutil.rmtree(bundle.folder)
    write_folder(bundle.folder, replace(bundle.manifest, figures={"train": train}), files)
    assert main(arguments(tmp_path, result)) == 1
    assert "expected a result of `optimize train`" in capsys.readouterr().err


def test_a_copy_that_a_kill_left_incomplete_is_made_again(tmp_path: Path) -> None:
    source = load_bundle(f"{tiny_bundle(tmp_path / 'bundle', tiny_graph(tmp_path / 'tiny.onnx'))}/")
    result = trained_result(tmp_path / "qat")
    (tmp_path / "study" / "trained_1").mkdir(parents=True)
    (tmp_path / "study" / "trained_1" / "labels.txt").write_text("half")
    (name,) = trained_bundles(tmp_path / "study", [str(result)], source)
    assert name == "qat" and (tmp_path / "study" / "trained_1" / "labels.txt").read_text() != "half"


def test_a_path_that_is_too_long_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = arguments(tmp_path, trained_result(tmp_path / "qat"))
    assert main([*given[:-1], str(tmp_path / ("x" * 300))]) == 2
    assert "expected a shorter path" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given", [["train", "qat", ""], ["auto", "a", "--video", ""], ["run", ""], ["run", "a", "--out="]]
)
def test_an_empty_argument_is_not_the_current_folder(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(given)
    assert stopped.value.code == 2
    assert f"got an empty one after {given[-1] or given[-2]}" in capsys.readouterr().err
