"""The import of files whose metadata or outputs are easily taken for something else."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from import_cases import constants, run_import
from shape_cases import Export
from shape_reference import EXPORTS
from tflite_cases import mean_tflite

from edge_vision.backends.base import TensorSpec
from edge_vision.bundles import load_bundle
from edge_vision.importer.head_evidence import HeadEvidence
from edge_vision.importer.head_rules import recognise_head
from edge_vision.importer.shape_rules import SUFFIX_OF_TASK

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


@pytest.mark.parametrize(
    "values, head, options, n_labels",
    [
        (pose(), "yolov8_pose", {"keypoints": 17, "point_values": 3}, 1),
        (pose(with_visibility=False), "yolov8_pose", {"keypoints": 17, "point_values": 2}, 1),
        (transposed(pose()), "yolov8_pose", {"keypoints": 17, "point_values": 3}, 1),
        (
            relative_pose().astype(np.float32),
            "yolov8_pose",
            {"box_unit": "relative", "keypoints": 17, "point_values": 3},
            1,
        ),
        (
            transposed(relative_pose()).astype(np.float32),
            "yolov8_pose",
            {"box_unit": "relative", "keypoints": 17, "point_values": 3},
            1,
        ),
        (oriented(-0.78, 2.35), "yolov8_obb", {}, 15),
        (transposed(oriented(-0.78, 2.35)), "yolov8_obb", {}, 15),
    ],
    ids=[
        "pose",
        "pose, x and y",
        "pose, rows",
        "pose, relative",
        "pose, relative, rows",
        "oriented",
        "oriented, rows",
    ],
)
def test_values_show_key_points_and_oriented_boxes(tmp_path: Path, values, head, options, n_labels) -> None:
    graph = constants(tmp_path / "m.onnx", {"output0": values})
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 0
    bundle = load_bundle(str(tmp_path / "out"))
    role = "columns" if values.shape[2] == 8400 else "rows"
    assert bundle.manifest.head.type == head and bundle.manifest.head.outputs == {role: "output0"}
    assert bundle.manifest.head.options == options and len(bundle.labels) == n_labels
    assert bundle.manifest.task == "detect" and bundle.manifest.input.resize == "letterbox"


def test_logits_are_refused(tmp_path: Path, capsys) -> None:
    graph = constants(tmp_path / "m.onnx", {"output0": logit_columns()})
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 1
    assert "expected class scores from 0 to 1, got -" in capsys.readouterr().err


def test_angles_that_may_be_scores_need_a_head(tmp_path: Path, capsys) -> None:
    graph = constants(tmp_path / "m.onnx", {"output0": oriented(0.5, 0.95)})
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 1
    assert "which may be angles: give --head yolov8_obb, or --head yolov8" in capsys.readouterr().err
    for head, n_labels in (("yolov8_obb", 15), ("yolov8", 16)):
        assert run_import(graph, "--head", head, "--out", tmp_path / head, "--yes") == 0
        bundle = load_bundle(str(tmp_path / head))
        assert bundle.manifest.head.type == head and len(bundle.labels) == n_labels


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.name)
@pytest.mark.parametrize("with_metadata", [True, False], ids=["metadata", "no metadata"])
@pytest.mark.parametrize("task", ["segment", "obb", "pose"])
def test_each_task_is_recognised(tmp_path: Path, export: Export, with_metadata: bool, task: str) -> None:
    if task == "pose" and not with_metadata:
        export = replace(export, n_classes=1)
    columns, more = export.columns(5)[0], {}
    cells = export.n_cells
    if task == "segment":
        maps = RNG.normal(0, 1, (1, export.k, export.height // 4, export.width // 4)).astype(np.float32)
        columns, more = np.concatenate((columns, RNG.normal(0, 1, (export.k, cells)))), {"output1": maps}
    elif task == "obb":
        columns = np.concatenate((columns, RNG.uniform(-0.78, 2.35, (1, cells))))
    else:
        k, n_values = export.points
        size = 1.0 if export.relative else np.array([export.width, export.height])[:, None]
        points = RNG.uniform(0, 1, (k, n_values, cells))
        points[:, :2] *= size
        columns = np.concatenate((columns, points.reshape(-1, cells)))
    declared = export.metadata(task) if with_metadata else {}
    graph = export.graph(tmp_path / "m.onnx", columns, more, **declared)
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 0
    bundle = load_bundle(str(tmp_path / "out"))
    assert (
        bundle.manifest.head.type == f"yolov8{SUFFIX_OF_TASK[task]}"
        and len(bundle.labels) == export.n_classes
    )
    assert bundle.manifest.head.outputs[export.role] == "output0"
    options = bundle.manifest.head.options
    assert options.get("box_unit", "px") == ("relative" if export.relative else "px")
    if task == "pose":
        assert (options["keypoints"], options["point_values"]) == export.points
    assert (bundle.labels[0] == "part 0") == with_metadata


NAMES = "{0: 'a', 1: 'b', 2: 'c'}"


def listed(n_extra: int, n: int = 300) -> np.ndarray:
    """(1, n, 6 + extra) as YOLO26's end-to-end exports: corners, score, class, the rest."""
    rows = RNG.uniform(0, 1, (1, n, 6 + n_extra)).astype(np.float32)
    rows[0, :, :2] *= 300
    rows[0, :, 2:4] = rows[0, :, :2] + RNG.uniform(5, 300, (n, 2))
    rows[0, :, 5] = RNG.integers(0, 3, n)
    return rows


@pytest.mark.parametrize(
    "task, n_extra, options",
    [
        ("segment", 32, {}),
        ("obb", 1, {}),
        ("pose", 51, {"keypoints": 17, "point_values": 3}),
        ("pose", 8, {"keypoints": 4, "point_values": 2}),
    ],
)
def test_end_to_end_exports_are_recognised(tmp_path: Path, task, n_extra, options) -> None:
    outputs = {"rows": listed(n_extra)}
    if task == "segment":
        outputs["maps"] = RNG.normal(0, 1, (1, 32, 160, 160)).astype(np.float32)
    metadata = {"task": task, "names": NAMES}
    if task == "pose":
        metadata["kpt_shape"] = str([options["keypoints"], options["point_values"]])
    graph = constants(tmp_path / "m.onnx", outputs, metadata=metadata)
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 0
    manifest = load_bundle(str(tmp_path / "out")).manifest
    assert manifest.head.type == f"end_to_end{SUFFIX_OF_TASK[task]}" and manifest.head.options == options
    if task == "segment":
        graph = constants(tmp_path / "n.onnx", outputs)
        (tmp_path / "names.txt").write_text("a\nb\nc\n")
        given = ["--labels", tmp_path / "names.txt", "--out", tmp_path / "again", "--yes"]
        assert run_import(graph, *given) == 0
        assert load_bundle(str(tmp_path / "again")).manifest.head == manifest.head


@pytest.mark.parametrize(
    "outputs, metadata, message",
    [
        ({"o": columns(3)}, {"task": "segment"}, "expected outputs of the task 'segment'"),
        (
            {"o": columns(3)},
            {"task": "pose", "kpt_shape": "[17, 3]"},
            "17 x 3 values per cell for key points, got 7",
        ),
        (
            {"o": columns(3)},
            {"task": "obb", "names": NAMES},
            "expected 4 + 3 + 1 values per cell for oriented",
        ),
        ({"o": pose()}, {"task": "detect"}, "expected outputs of the task 'detect'"),
        (
            {"o": pose()},
            {"task": "pose", "kpt_shape": "[18, 3]"},
            "18 x 3 values per cell for key points, got 56",
        ),
        (
            {"o": pose()},
            {"task": "pose", "kpt_shape": "many"},
            "expected kpt_shape in the file's metadata as [17, 3]",
        ),
        ({"o": pose()}, {"task": "obb"}, "expected class scores from 0 to 1"),
        ({"o": oriented(-0.7, 9.0)}, {"task": "obb"}, "expected angles up to 6.283 rad"),
        (
            {"o": columns(35), "p": np.zeros((1, 16, 160, 160), np.float32)},
            {"task": "segment", "names": NAMES},
            "expected 4 + 3 + 16 values per cell beside prototypes [1, 16, 160, 160], got 39",
        ),
        (
            {"o": columns(30), "p": np.zeros((1, 32, 160, 160), np.float32)},
            {},
            "expected 4 + classes + 32 values per cell beside prototypes [1, 32, 160, 160], got 34",
        ),
        (
            {"o": listed(31), "p": np.zeros((1, 32, 160, 160), np.float32)},
            {"task": "segment", "names": NAMES},
            "expected 6 + 32 values per object for the head 'end_to_end_seg', got 37 in [1, 300, 37]",
        ),
        ({"o": listed(2)}, {"task": "obb", "names": NAMES}, "expected 6 + 1 values per object"),
        (
            {"o": logit_columns(), "p": np.zeros((1, 2, 160, 160), np.float32)},
            {},
            "expected class scores from 0 to 1, got -",
        ),
    ],
)
def test_what_the_numbers_contradict_is_refused(tmp_path: Path, capsys, outputs, metadata, message) -> None:
    graph = constants(tmp_path / "m.onnx", outputs, metadata=metadata)
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 1
    assert message in capsys.readouterr().err


def test_prototypes_that_are_not_finite_are_refused(tmp_path: Path, capsys) -> None:
    outputs = {"o": columns(35), "p": np.full((1, 32, 160, 160), np.nan, np.float32)}
    graph = constants(tmp_path / "m.onnx", outputs)
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 1
    assert "values of output 'p' are not finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_head_that_the_values_contradict_is_refused(tmp_path: Path, capsys) -> None:
    graph = constants(tmp_path / "m.onnx", {"output0": pose()})
    assert run_import(graph, "--head", "yolov8", "--out", tmp_path / "out", "--yes") == 1
    assert "expected outputs for the head 'yolov8', got those of 'yolov8_pose'" in capsys.readouterr().err


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
    assert "expected outputs of the task 'pose'" in capsys.readouterr().err
