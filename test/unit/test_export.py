"""Graphs in other formats: the same outputs as ONNX Runtime, names kept, unknown operators named."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_cases import bundle_or_skip
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edge_vision.backends import BackendRequest, available_backends, load_on, make_backend
from edge_vision.bundles.store import load_bundle
from edge_vision.cli.models import main
from edge_vision.errors import BackendError, BundleError
from edge_vision.export.formats import export
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization import graph_session, ptq
from edge_vision.optimize.quantization.int8_recipe import int8_recipe
from edge_vision.optimize.tflite.conversion import to_tflite

BUNDLES = ("efficientnet_lite0_imagenet", "nanodet", "ssd_mobilenet_v2_oidv4", "ssdlite_mobilenet_v2_coco")
Weights = dict[str, np.ndarray]
RANDOM = np.random.default_rng(3)


def weights(*shape: int) -> np.ndarray:
    return RANDOM.normal(0, 0.3, shape).astype(np.float32)


def graph(
    nodes: Sequence[tuple[Any, ...]], constants: Weights, outputs: dict[str, list[int]], sides: Sequence[int]
) -> ModelProto:
    """nodes: operator, inputs, output or outputs, attributes."""
    made = [
        helper.make_node(op, inputs, [out] if isinstance(out, str) else out, f"n{i}", **attributes)
        for i, (op, inputs, out, attributes) in enumerate(nodes)
    ]
    value = helper.make_tensor_value_info
    return helper.make_model(
        helper.make_graph(
            made,
            "case",
            [value("x", TensorProto.FLOAT, sides)],
            [value(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def one(op: str, constants: Weights, shape: list[int], **attributes: Any) -> ModelProto:
    """A graph of one node that reads x and the constants. shape: of the output."""
    return graph([(op, ["x", *constants], "y", attributes)], constants, {"y": shape}, SIDES)


SIDES = [1, 6, 9, 10]
SCALES = np.array([1, 1, 2, 2], np.float32)
CASES: dict[str, Callable[[], ModelProto]] = {
    "conv": lambda: one(
        "Conv", {"w": weights(4, 6, 3, 3), "b": weights(4)}, [1, 4, 9, 10], pads=[1, 1, 1, 1]
    ),
    "conv without a bias": lambda: one("Conv", {"w": weights(4, 6, 1, 1)}, [1, 4, 9, 10]),
    "uneven pads": lambda: one(
        "Conv", {"w": weights(4, 6, 3, 2)}, [1, 4, 5, 6], pads=[1, 1, 1, 2], strides=[2, 2]
    ),
    "lower pads": lambda: one("Conv", {"w": weights(4, 6, 2, 2)}, [1, 4, 9, 10], auto_pad="SAME_LOWER"),
    "dilated": lambda: one("Conv", {"w": weights(4, 6, 3, 3)}, [1, 4, 5, 6], dilations=[2, 2]),
    "depthwise": lambda: one("Conv", {"w": weights(12, 1, 3, 3)}, [1, 12, 7, 8], group=6),
    "max pool": lambda: one(
        "MaxPool", {}, [1, 6, 5, 5], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    ),
    "average pool": lambda: one("AveragePool", {}, [1, 6, 4, 5], kernel_shape=[2, 2], strides=[2, 2]),
    "global pool": lambda: one("GlobalAveragePool", {}, [1, 6, 1, 1]),
    "leaky": lambda: one("LeakyRelu", {}, SIDES, alpha=0.2),
    "linear resize": lambda: graph(
        [("Resize", ["x", "", "s"], "y", {"mode": "linear"})], {"s": SCALES}, {"y": [1, 6, 18, 20]}, SIDES
    ),
    "nearest resize": lambda: graph(
        [("Resize", ["x", "", "s"], "y", {"mode": "nearest"})], {"s": SCALES}, {"y": [1, 6, 18, 20]}, SIDES
    ),
    "scale of each channel": lambda: one("Mul", {"c": weights(1, 6, 1, 1)}, SIDES),
    "difference of a constant": lambda: graph(
        [("Sub", ["c", "x"], "y", {})], {"c": weights(6, 1, 1)}, {"y": SIDES}, SIDES
    ),
    "softmax": lambda: one("Softmax", {}, SIDES, axis=-1),
    "input as output": lambda: one("Identity", {}, SIDES),
    "layout": lambda: graph(
        [
            ("Conv", ["x", "w"], "c", {}),
            ("Split", ["c", "sizes"], ["a", "b"], {"axis": 1}),
            ("Sigmoid", ["a"], "s", {}),
            ("Concat", ["b", "s"], "j", {"axis": 1}),
            ("Transpose", ["j"], "t", {"perm": [0, 2, 3, 1]}),
            ("Reshape", ["t", "rows"], "y", {}),
            ("Transpose", ["j"], "z", {"perm": [0, 3, 1, 2]}),
        ],
        {"w": weights(5, 6, 1, 1), "sizes": np.array([2, 3]), "rows": np.array([1, -1, 5])},
        {"y": [1, 90, 5], "z": [1, 10, 5, 9]},
        SIDES,
    ),
    "classifier": lambda: graph(
        [
            ("Conv", ["x", "w"], "c", {}),
            ("Clip", ["c", "zero", "six"], "r", {}),
            ("Add", ["r", "x"], "a", {}),
            ("GlobalAveragePool", ["a"], "p", {}),
            ("Flatten", ["p"], "f", {}),
            ("Gemm", ["f", "k", "b"], "y", {"transB": 1}),
        ],
        {
            "w": weights(6, 6, 1, 1),
            "zero": np.float32(0),
            "six": np.float32(6),
            "k": weights(7, 6),
            "b": weights(7),
        },
        {"y": [1, 7]},
        SIDES,
    ),
}


def litert(data: bytes, folder: Path) -> Any:
    reason = available_backends()["litert"]
    if reason:
        pytest.skip(reason)
    file = folder / "model.tflite"
    file.write_bytes(data)
    return make_backend("litert").load(file, BackendRequest(threads=1))


def images(sides: Sequence[int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, sides).astype(np.float32)


def expected(model: Any, given: np.ndarray, exact: bool = False) -> dict[str, np.ndarray]:
    session = graph_session.session(model, exact=exact)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: given}), strict=True))


def sqnr_db(found: np.ndarray, wanted: np.ndarray) -> float:
    noise = np.square(found - wanted).sum()
    return float(10 * np.log10(np.square(wanted).sum() / max(noise, 1e-20)))


@pytest.mark.parametrize("name", CASES)
def test_a_tflite_graph_computes_the_same(name: str, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    model = CASES[name]()
    session, given = litert(to_tflite(model), tmp_path), images(SIDES)
    assert [(one.name, one.shape) for one in session.inputs] == [("x", tuple(SIDES))]
    found, wanted = session.run({"x": given}), expected(model, given)
    assert list(found) == list(wanted)
    for output, values in wanted.items():
        np.testing.assert_allclose(found[output], values, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["conv", "uneven pads", "depthwise", "max pool", "leaky", "layout", "classifier"]
)
def test_an_int8_tflite_graph_computes_as_its_quantizers_say(name: str, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    model = CASES[name]()
    ranges = ptq.calibrate(model, [images(SIDES, seed) for seed in range(4)])
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    quantized = ptq.quantize(model, ranges, int8_recipe("litert", ()))
    data = to_tflite(quantized)
    given = images(SIDES)
    found, wanted = litert(data, tmp_path).run({"x": given}), expected(quantized, given, exact=True)
    for output, values in wanted.items():
        # A sum that lies between two steps may be rounded to either.
        assert sqnr_db(found[output], values) > 30


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: one("Cos", {}, SIDES), "can be converted to TFLite, got Cos"),
        (lambda: one("Softmax", {}, SIDES, axis=1), "expected the last axis"),
        (lambda: one("Clip", {"low": np.float32(-1), "high": np.float32(1)}, SIDES), "limits of 0 and 6"),
    ],
)
def test_what_cannot_be_converted_is_named(model: Callable[[], ModelProto], message: str) -> None:
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(OptimizeError, match=message):
        to_tflite(model())


@pytest.mark.parametrize("name", BUNDLES)
def test_bundles_become_tflite(name: str, tmp_path: Path) -> None:
    bundle_or_skip(name)
    pytest.importorskip("ai_edge_litert")
    made = export(name, "tflite", "fp32", tmp_path / "made")
    assert [(g.format, g.precision) for g in made.manifest.graphs][-1] == ("tflite", "fp32")
    check_same(made, "litert", 1e-3)


def check_same(bundle: Any, backend: str, tolerance: float) -> None:
    """The backend's outputs, relative to the largest one, are those of ONNX Runtime."""
    spec = bundle.manifest.input
    given = {spec.name: images([side or 1 for side in spec.shape])}
    request = BackendRequest(precision="fp32", threads=1)
    found, wanted = (
        load_on(bundle, one, request, trial=False).run(given) for one in (backend, "onnxruntime")
    )
    assert set(found) == set(wanted)
    for output, values in wanted.items():
        assert np.abs(found[output] - values).max() < tolerance * np.abs(values).max()


def test_an_int8_bundle_becomes_int8_tflite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle_or_skip("nanodet_320")
    pytest.importorskip("ai_edge_litert")
    out = tmp_path / "made"
    command = ["export", "nanodet_320", "--format", "tflite", "--precision", "int8", "--out", str(out)]
    assert main(command) == 0
    assert "model_int8.tflite, tflite int8, 3.9 MB" in capsys.readouterr().out
    made = load_bundle(f"{out}{os.sep}")
    spec = made.manifest.input
    given = {spec.name: np.clip(images([side or 1 for side in spec.shape]), -2, 2)}
    request = BackendRequest(precision="int8", threads=1)
    found, wanted = (load_on(made, one, request, trial=False).run(given) for one in ("litert", "onnxruntime"))
    assert sqnr_db(found["rows"], wanted["rows"]) > 20


def test_a_precision_that_the_format_lacks_is_refused(tmp_path: Path) -> None:
    bundle_or_skip("nanodet_320")
    with pytest.raises(BundleError, match="expected a precision of fp32 for pte, got int8"):
        export("nanodet_320", "pte", "int8", tmp_path / "made")


@pytest.mark.parametrize(("form", "backend"), [("pte", "executorch"), ("torchscript", "torchscript")])
def test_a_bundle_becomes_a_program_of_pytorch(form: str, backend: str, tmp_path: Path) -> None:
    """Exported, verified, tried in a child process, run; without the package a message that names it."""
    bundle_or_skip("efficientnet_lite0_imagenet")
    reason = available_backends()[backend]
    if reason:
        with pytest.raises(BackendError, match="is not installed: pip install"):
            export("efficientnet_lite0_imagenet", form, "fp32", tmp_path / "made")
        pytest.skip(reason)
    made = export("efficientnet_lite0_imagenet", form, "fp32", tmp_path / "made")
    check_same(made, backend, 1e-3)
    (tmp_path / "made" / f"model.{form}").write_bytes(b"PK another archive")
    with pytest.raises(BundleError, match="sha256"):
        load_on(made, backend, BackendRequest())


def test_an_archive_of_another_tool_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: make setup-train")
    file = tmp_path / "model.torchscript"
    torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.zeros(1)), str(file))
    with pytest.raises(BackendError, match="another tool's, use `models export`"):
        make_backend("torchscript").load(file, BackendRequest())
