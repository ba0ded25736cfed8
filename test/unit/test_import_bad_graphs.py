"""`bundles import` on sound files whose graph, labels or settings are not usable: one clear error each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from import_cases import ULTRALYTICS, constants, refused, save, small_yolov8
from onnx import TensorProto, helper, numpy_helper

pytestmark = pytest.mark.usefixtures("trials_passed")


def test_several_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = {"output0": np.zeros((1, 7, 84), np.float32)}
    more = {"prompt": (TensorProto.INT64, [1, 16])}
    graph = constants(tmp_path / "m.onnx", outputs, (1, 3, 64, 64), more_inputs=more)
    message = refused(tmp_path, capsys, graph)
    assert (
        "expected one input for an image, got 2: 'images' [1, 3, 64, 64] float32; 'prompt' [1, 16] int64"
        in message
    )


@pytest.mark.parametrize(
    "kind, shape, message",
    [
        (
            TensorProto.INT64,
            [1, 3, 64, 64],
            "expected an image as float32, float16, uint8, got 'images' [1, 3, 64, 64] int64",
        ),
        (TensorProto.DOUBLE, [1, 3, 64, 64], "got 'images' [1, 3, 64, 64] float64"),
        (TensorProto.STRING, [1, 3, 64, 64], "expected an image as float32"),
        (
            TensorProto.FLOAT,
            [1, 128],
            "expected an input of four dimensions, for an image, got 'images' [1, 128]",
        ),
        (TensorProto.FLOAT, [1, 4, 64, 64], "expected 1 or 3 channels"),
        (
            TensorProto.FLOAT,
            [1, 3, "h", "w"],
            "expected an input of one size, the graph takes anyxany; give the size",
        ),
        (
            TensorProto.FLOAT,
            [1, 3, 64, "w"],
            "the graph takes anyx64; give the size that it was trained for: --input-size",
        ),
    ],
)
def test_an_input_that_takes_no_picture(tmp_path: Path, capsys, kind: int, shape: list, message: str) -> None:
    value = numpy_helper.from_array(np.zeros((1, 7, 84), np.float32), "value")
    node = helper.make_node("Identity", ["value"], ["output0"])
    outputs = {"output0": (TensorProto.FLOAT, [1, 7, 84])}
    graph = save(tmp_path / "m.onnx", [node], {"images": (kind, shape)}, outputs, [value])
    assert message in refused(tmp_path, capsys, graph)


def test_no_input_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = numpy_helper.from_array(np.zeros((1, 7, 84), np.float32), "value")
    node = helper.make_node("Identity", ["value"], ["output0"])
    graph = save(tmp_path / "m.onnx", [node], {}, {"output0": (TensorProto.FLOAT, [1, 7, 84])}, [value])
    assert "expected one input for an image, got 0: none" in refused(tmp_path, capsys, graph)


def test_a_size_that_the_graph_cannot_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = small_yolov8(tmp_path / "m.onnx", "h", "w")
    message = refused(tmp_path, capsys, graph, "--input-size", "16x16")
    assert "expected a graph that runs" in message or "cannot be fixed to an input" in message
    for text in ("0x10", "640x", "9000", "a", "640x480x3"):
        assert "expected a size as WIDTHxHEIGHT" in refused(tmp_path, capsys, graph, "--input-size", text)


def test_outputs_that_no_head_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = constants(tmp_path / "m.onnx", {"mask": np.zeros((1, 21, 64, 64), np.float32)}, (1, 3, 64, 64))
    message = refused(tmp_path, capsys, graph)
    assert "expected outputs that a head reads, got 'mask' [1, 21, 64, 64] float32 at 64x64" in message
    assert "expected outputs for the head 'yolox', got 'mask'" in refused(
        tmp_path, capsys, graph, "--head", "yolox"
    )
    assert "expected a head out of ssd, yolov5" in refused(tmp_path, capsys, graph, "--head", "yolo")


def test_a_head_that_does_not_fit_is_refused_with_both_shapes(tmp_path: Path, capsys) -> None:
    outputs = {"a": np.zeros((1, 17, 9), np.float32), "b": np.zeros((1, 17, 4), np.float32)}
    graph = constants(tmp_path / "m.onnx", {**outputs, "c": np.zeros((1, 3, 3), np.float32)}, (1, 3, 64, 64))
    (tmp_path / "names.txt").write_text("a\nb\n")
    given = [
        "--head",
        "detr",
        "--set",
        "head.outputs={logits: a, boxes: b}",
        "--labels",
        tmp_path / "names.txt",
    ]
    assert "expects logits of shape [1, queries, 2], output 'a' has [1, 17, 9]" in refused(
        tmp_path, capsys, graph, *given
    )


def test_numbers_that_are_not_finite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = constants(
        tmp_path / "m.onnx", {"output0": np.full((1, 7, 84), np.nan, np.float32)}, (1, 3, 64, 64)
    )
    assert "are not finite" in refused(tmp_path, capsys, graph)


def test_a_task_without_a_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = small_yolov8(tmp_path / "m.onnx", metadata={**ULTRALYTICS, "task": "depth"})
    assert "segment, obb, pose, got one for the task 'depth'" in refused(tmp_path, capsys, graph)


@pytest.mark.parametrize(
    "task, message",
    [
        ("segment", "expected outputs of the task 'segment'"),
        ("pose", "expected 4 + 3 + k x 3 values per cell for key points, got 7"),
        ("obb", "expected 4 + 3 + 1 values per cell for oriented boxes, got 7"),
    ],
)
def test_a_task_that_the_outputs_contradict(tmp_path: Path, capsys, task: str, message: str) -> None:
    graph = small_yolov8(tmp_path / "m.onnx", metadata={**ULTRALYTICS, "task": task})
    assert message in refused(tmp_path, capsys, graph)


# --- What is given with it ---


def test_labels_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = small_yolov8(tmp_path / "m.onnx", metadata=ULTRALYTICS)
    labels = tmp_path / "names.txt"
    labels.write_text("a\nb\n")
    assert "expected 3 labels, one for each class of the graph, got 2" in refused(
        tmp_path, capsys, graph, "--labels", labels
    )
    labels.write_text("a\n\nb\n")
    assert "line 2 is empty" in refused(tmp_path, capsys, graph, "--labels", labels)
    labels.write_bytes(b"\xff\xfe\xfa")
    assert "expected a text file" in refused(tmp_path, capsys, graph, "--labels", labels)
    assert "expected a text file" in refused(tmp_path, capsys, graph, "--labels", tmp_path / "absent")
    rows = np.zeros((1, 300, 6), np.float32)
    unnamed = constants(tmp_path / "e.onnx", {"output0": rows})
    assert "give one per line: --labels FILE" in refused(tmp_path, capsys, unnamed)


@pytest.mark.parametrize(
    "setting, message",
    [
        ("licence", "expected KEY=VALUE"),
        ("input.colour=bgr", "input.colour: expected one of name, width_px"),
        ("input.color=blue", "input.color: expected rgb, bgr or gray, got 'blue'"),
        ("input.mean=[1, 2]", "input.mean: expected a list of 3 numbers"),
        ("graphs=[]", "expected a key below description, licence"),
        ("name=other", "expected a key below description, licence"),
        ("input.name.x=1", "expected a key below"),
        ("input.mean=[1, 2", "expected plain YAML, got an error"),
        ("head.options.box_unit=miles", "one of px, relative, got 'miles'"),
        ("head.outputs={columns: other}", "reads its columns from output 'other', the graph has output0"),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, capsys, setting: str, message: str) -> None:
    graph = small_yolov8(tmp_path / "m.onnx", metadata=ULTRALYTICS)
    assert message in refused(tmp_path, capsys, graph, "--set", setting)


def test_a_picture_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = small_yolov8(tmp_path / "m.onnx", metadata=ULTRALYTICS)
    (tmp_path / "p.png").write_bytes(b"no picture")
    for picture in (tmp_path / "p.png", tmp_path / "absent.png", tmp_path):
        assert "expected an image or a video" in refused(tmp_path, capsys, graph, "--try", picture)
