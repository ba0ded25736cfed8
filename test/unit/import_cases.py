"""What the tests of the import share: graphs shaped as exports are, and a run of the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_vision.cli.models import main

NAMES = "{0: 'bolt', 1: 'nut', 2: 'wing nut'}"
ULTRALYTICS = {
    "description": "Ultralytics YOLO11n model trained on parts.yaml",
    "license": "AGPL-3.0 License (https://ultralytics.com/license)",
    "names": NAMES,
    "stride": "32",
    "task": "detect",
    "batch": "1",
    "imgsz": "[96, 128]",
}


def run_import(*arguments: object) -> int:
    """The command's exit code."""
    return main(["import", *map(str, arguments)])


def save(
    path: Path,
    nodes: list,
    inputs: dict[str, tuple[int, list]],
    outputs: dict[str, tuple[int, list | None]],
    weights: list,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a graph; inputs and outputs map names to ONNX's number of their type and a shape."""
    infos = [
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in given.items()]
        for given in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "export", *infos, initializer=weights)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="pytorch"
    )
    helper.set_model_props(model, metadata or {})
    path.write_bytes(model.SerializeToString())
    return path


def small_yolov8(
    path: Path,
    height: object = 96,
    width: object = 128,
    n_classes: int = 3,
    kind: int = TensorProto.FLOAT,
    metadata: dict[str, str] | None = None,
    batch: object = 1,
) -> Path:
    """A graph with YOLOv8's output: (1, 4 + classes, cells), from one convolution per stride. Any size.

    kind: of the input; its inside is float16 for FLOAT16, else float32.
    """
    rng = np.random.default_rng(1)
    dtype = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    shape = np.array([0, 4 + n_classes, -1], np.int64)
    weights, parts = [numpy_helper.from_array(shape, "shape")], []
    nodes = [helper.make_node("Cast", ["images"], ["x"], to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))]
    scale = np.array([64.0] * 4 + [1.0] * n_classes, dtype).reshape(1, -1, 1)
    weights.append(numpy_helper.from_array(scale, "scale"))
    for s in (8, 16, 32):
        kernel = rng.normal(0, 0.1 / s, (4 + n_classes, 3, s, s)).astype(dtype)
        weights.append(numpy_helper.from_array(kernel, f"w{s}"))
        nodes += [
            helper.make_node("Conv", ["x", f"w{s}"], [f"c{s}"], strides=[s, s], kernel_shape=[s, s]),
            helper.make_node("Reshape", [f"c{s}", "shape"], [f"r{s}"]),
        ]
        parts.append(f"r{s}")
    nodes += [
        helper.make_node("Concat", parts, ["all"], axis=2),
        helper.make_node("Sigmoid", ["all"], ["shares"]),
        helper.make_node("Mul", ["shares", "scale"], ["output0"]),
    ]
    inner = TensorProto.FLOAT16 if dtype is np.float16 else TensorProto.FLOAT
    inputs = {"images": (kind, [batch, 3, height, width])}
    return save(path, nodes, inputs, {"output0": (inner, [batch, 4 + n_classes, "n"])}, weights, metadata)


def constants(
    path: Path,
    outputs: dict[str, np.ndarray],
    picture: tuple[int, ...] = (1, 3, 640, 640),
    metadata: dict[str, str] | None = None,
    more_inputs: dict[str, tuple[int, list]] | None = None,
) -> Path:
    """A graph with these constant outputs, whatever its input."""
    weights = [numpy_helper.from_array(value, f"{name}_value") for name, value in outputs.items()]
    nodes = [helper.make_node("Identity", [f"{name}_value"], [name]) for name in outputs]
    infos = {
        name: (helper.np_dtype_to_tensor_dtype(value.dtype), list(value.shape))
        for name, value in outputs.items()
    }
    inputs = {"images": (TensorProto.FLOAT, list(picture)), **(more_inputs or {})}
    return save(path, nodes, inputs, infos, weights, metadata)


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], file: Path, *arguments: object) -> str:
    """The message; everything in the folder is as it was."""
    before = sorted(path.name for path in tmp_path.rglob("*"))
    capsys.readouterr()
    assert run_import(file, "--out", tmp_path / "out", "--yes", *arguments) == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "Traceback" not in message
    return message
