"""The import of files whose metadata or outputs are easily taken for something else."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from import_cases import constants, run_import
from tflite_cases import mean_tflite

from edge_vision.backends.base import TensorSpec
from edge_vision.bundles import load_bundle
from edge_vision.importer.head_evidence import HeadEvidence
from edge_vision.importer.head_rules import recognise_head

pytestmark = pytest.mark.usefixtures("trials_passed")
RNG = np.random.default_rng(7)


def columns(n_classes: int, n_cells: int = 8400) -> np.ndarray:
    """(1, 4 + classes, cells) of an untrained detector: boxes in pixels, scores near 0."""
    values = np.zeros((1, 4 + n_classes, n_cells), np.float32)
    values[0, :4] = RNG.uniform(20, 600, (4, n_cells))
    values[0, 4:] = RNG.uniform(0, 0.02, (n_classes, n_cells))
    return values


def transposed(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values.transpose(0, 2, 1))


def pose(with_visibility: bool = True) -> np.ndarray:
    """17 key points, in pixels."""
    parts = [columns(1)]
    for _ in range(17):
        parts.append(RNG.uniform(0, 640, (1, 2, 8400)))
        parts += [RNG.uniform(0, 1, (1, 1, 8400))] if with_visibility else []
    return np.concatenate(parts, axis=1).astype(np.float32)


def relative_pose() -> np.ndarray:
    """As in TFLite exports."""
    return (
        pose()
        / np.array([640 if at < 4 or (at > 4 and (at - 5) % 3 < 2) else 1 for at in range(56)])[:, None]
    )


def oriented(low: float, high: float) -> np.ndarray:
    """15 classes and an angle."""
    angles = RNG.uniform(low, high, (1, 1, 8400))
    return np.concatenate((columns(15), angles), axis=1).astype(np.float32)


def logit_columns() -> np.ndarray:
    values = columns(6)
    values[0, 4:] = RNG.normal(-5, 2, (6, 8400))
    return values


POSE, ORIENTED = "a pose model, not supported", "oriented boxes, not supported"


@pytest.mark.parametrize(
    "values, message",
    [
        (pose(), POSE),
        (pose(with_visibility=False), POSE),
        (transposed(pose()), POSE),
        (relative_pose().astype(np.float32), POSE),
        (transposed(relative_pose()).astype(np.float32), POSE),
        (oriented(-0.78, 2.35), ORIENTED),
        (oriented(0.5, 0.95), ORIENTED),
        (transposed(oriented(-0.78, 2.35)), ORIENTED),
        (logit_columns(), "expected class scores from 0 to 1, got -"),
    ],
    ids=[
        "pose",
        "pose, x and y",
        "pose, rows",
        "pose, relative",
        "pose, relative, rows",
        "oriented",
        "oriented, angles below 1",
        "oriented, rows",
        "logits",
    ],
)
def test_outputs_of_other_tasks_are_refused_by_name(tmp_path: Path, capsys, values, message) -> None:
    graph = constants(tmp_path / "m.onnx", {"output0": values})
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "n_classes, given",
    [(80, ()), (1, ()), (6, ("--head", "yolov8")), (6, ("--labels", "six.txt"))],
)
def test_transposed_yolov8_has_no_objectness(tmp_path: Path, monkeypatch, n_classes, given) -> None:
    monkeypatch.chdir(tmp_path)
    Path("six.txt").write_text("a\nb\nc\nd\ne\nf\n")
    graph = constants(tmp_path / "m.onnx", {"output0": transposed(columns(n_classes))})
    assert run_import(graph, *given, "--out", tmp_path / "out", "--yes") == 0
    bundle = load_bundle(str(tmp_path / "out"))
    assert bundle.manifest.head.type == "yolov8" and bundle.manifest.head.outputs == {"rows": "output0"}
    assert len(bundle.labels) == n_classes


def test_rows_that_two_heads_read_need_labels_or_a_head(tmp_path: Path, capsys) -> None:
    """6 classes, or 5 and objectness."""
    graph = constants(tmp_path / "m.onnx", {"output0": transposed(columns(6))})
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 1
    assert "YOLOv8 with 6 classes, or YOLOv5 with 5; give the labels" in capsys.readouterr().err
    assert run_import(graph, "--head", "yolov5", "--out", tmp_path / "out", "--yes") == 0
    assert len(load_bundle(str(tmp_path / "out")).labels) == 5


@pytest.mark.parametrize("task", ["segment", "pose", "obb"])
def test_a_task_is_refused_without_names_in_the_metadata(tmp_path: Path, capsys, task) -> None:
    graph = constants(tmp_path / "m.onnx", {"output0": columns(3)}, metadata={"task": task})
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 1
    assert f"got one for the task '{task}'" in capsys.readouterr().err


def test_names_with_a_gap_do_not_become_coco(tmp_path: Path, capsys) -> None:
    names = {number + (number > 40): f"part {number}" for number in range(80)}
    graph = constants(tmp_path / "m.onnx", {"output0": columns(80)}, metadata={"names": str(names)})
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 0
    assert load_bundle(str(tmp_path / "out")).labels[:2] == ("class_0", "class_1")
    assert "names in the file's metadata, not numbered 0, 1, 2" in capsys.readouterr().out


def test_an_object_of_nms_is_no_classifier() -> None:
    """[n, 7] outputs have one row if the run on noise finds one object."""
    row = np.array([[0, 20.5, 30, 90, 120, 16, 0.3]], np.float32)
    specs = (TensorSpec("output", (1, 7), "float32"),)
    assert recognise_head(HeadEvidence("onnx", 640, 640, specs, {"output": row})) is None
    row[0, 0] = 0.25
    guess = recognise_head(HeadEvidence("onnx", 640, 640, specs, {"output": row}))
    assert guess is not None and guess.spec.type == "classifier"


def test_an_export_for_several_images_is_refused_as_a_batch(tmp_path: Path, capsys) -> None:
    values = np.repeat(columns(3), 4, axis=0)
    graph = constants(tmp_path / "m.onnx", {"output0": values}, picture=(4, 3, 640, 640))
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 1
    assert "takes a batch of 4 images, edge_vision runs one at a time" in capsys.readouterr().err
    assert (
        run_import(mean_tflite(tmp_path / "m.tflite", (4, 3, 8, 8)), "--out", tmp_path / "out", "--yes") == 1
    )
    assert "takes a batch of 4 images" in capsys.readouterr().err


# --- The archive at the end of a TFLite file ---

METADATA = {
    "task": "classify",
    "license": "MIT",
    "names": {0: "bolt", 1: "nut", 2: "washer"},
    "imgsz": [8, 8],
}


def with_archive(path: Path, files: dict[str, str]) -> Path:
    mean_tflite(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


@pytest.mark.parametrize(
    "files, labels",
    [
        ({"metadata.json": json.dumps(METADATA)}, ("bolt", "nut", "washer")),
        ({"temp_meta.txt": str(METADATA)}, ("bolt", "nut", "washer")),
        ({"labelmap.txt": "a\nb\nc\n", "temp_meta.txt": str({"task": "classify"})}, ("a", "b", "c")),
        ({"../metadata.json": json.dumps(METADATA)}, ("bolt", "nut", "washer")),
        ({"temp_meta.txt": "__import__('os').abort()"}, ("class_0", "class_1", "class_2")),
        ({"metadata.json": "[" * 100_000}, ("class_0", "class_1", "class_2")),
        ({"metadata.json": " " * (64 << 20) + json.dumps(METADATA)}, ("class_0", "class_1", "class_2")),
    ],
    ids=["json", "dictionary", "list", "a path", "code", "deep", "64 MB of blanks"],
)
def test_metadata_of_a_tflite_file(tmp_path: Path, files: dict[str, str], labels: tuple[str, ...]) -> None:
    graph = with_archive(tmp_path / "m.tflite", files)
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 0
    bundle = load_bundle(str(tmp_path / "out"))
    assert bundle.labels == labels
    if labels[0] == "bolt":
        assert bundle.manifest.licence == "MIT" and bundle.manifest.input.std == (255.0,) * 3


def test_the_task_of_a_tflite_file(tmp_path: Path, capsys) -> None:
    metadata = {**METADATA, "task": "pose"}
    graph = with_archive(tmp_path / "m.tflite", {"metadata.json": json.dumps(metadata)})
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 1
    assert "got one for the task 'pose'" in capsys.readouterr().err
