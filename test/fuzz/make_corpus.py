#!/usr/bin/env python3
"""Writes the corpus, small valid files of each kind: `python test/fuzz/make_corpus.py`."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnx.parser

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT), str(_ROOT / "test" / "unit")]

from graph_targets import OpenVinoGraphs  # noqa: E402
from tflite_cases import mean_tflite, packed, schema_or_skip, tflite_tensor  # noqa: E402

from edge_vision.bundles.manifest import GraphSpec, Manifest  # noqa: E402
from edge_vision.core.model_spec import HeadSpec, InputSpec, StageSpec, Thresholds  # noqa: E402
from edge_vision.offline.manifest_writer import dump_manifest  # noqa: E402
from edge_vision.offline.onnx_writer import OnnxWriter  # noqa: E402

CORPUS = Path(__file__).parent / "corpus"
_OPERATORS = """
<ir_version: 8, opset_import: ["" : 17]>
operators (float[1,3,8,8] images) => (float[1,n] found, int64[m,3] kept, float[1,4] last)
<float[2,3,1,1] kernel = {0.5, -0.5, 1, 0.1, 0.2, 0.3}, float step = {0.1}, uint8 zero = {8},
 float[4] scales = {1, 1, 2, 2}, int64[1] from = {0}, int64[1] to = {8}, int64[1] axis = {1},
 int64[2] rows = {0, 3}, int64[1] k = {3}, int64[1,1] at = {0}, int64[6] pads = {0, 1, 0, 0, 1, 0},
 int64 most = {5}, float[1] limit = {0.5}, int64 times = {3}, bool yes = {1},
 float[1,4] zeros = {0, 0, 0, 0}, int64[2] flat = {1, -1}, int64[3] wide = {1, 32, 4}>
{
  convolved = Conv <pads = [0, 0, 0, 0]> (images, kernel)
  limited = Relu (convolved)
  pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (limited)
  steps = QuantizeLinear (pooled, step, zero)
  values = DequantizeLinear (steps, step, zero)
  resized = Resize <mode = "nearest"> (values, , scales)
  turned = Transpose <perm = [0, 2, 3, 1]> (resized)
  all_boxes = Reshape (turned, wide)
  boxes = Slice (all_boxes, from, to, axis)
  padded = Pad (boxes, pads)
  some = Gather <axis = 1> (boxes, rows)
  one = GatherND (padded, at)
  best, places = TopK (padded, k)
  row = Reshape (one, flat)
  scores = Softmax <axis = 1> (row)
  products = Einsum <equation = "bij,bkj->bik"> (boxes, boxes)
  means = ReduceMean <axes = [2], keepdims = 0> (products)
  of_boxes = Unsqueeze (means, axis)
  kept = NonMaxSuppression (boxes, of_boxes, most, limit, limit)
  last = Loop (times, yes, zeros) <
    body = body (int64 i, bool more, float[1,4] sum) => (bool again, float[1,4] grown) {
      again = Identity (more)
      grown = Add (sum, limit)
    }
  >
  flat_productsoxes = Reshape (some, flat)
  flat_products = Reshape (products, flat)
  found = Concat <axis = 1> (flat_productsoxes, flat_products, scores)
}
"""
_GRAPH = GraphSpec("model.onnx", "onnx", "fp32", "0" * 64)


def write(kind: str, name: str, data: bytes) -> None:
    """Write one seed."""
    (CORPUS / kind).mkdir(parents=True, exist_ok=True)
    (CORPUS / kind / name).write_bytes(data)


def manifests() -> None:
    """A detector and a classifier with a stage."""
    picture = InputSpec("images", 320, 320)
    head = HeadSpec("yolov8", {"predictions": "output0"}, {"normalized": True, "classes": [0, 1]})
    common: dict[str, Any] = {"version": "1.0.0", "licence": "MIT", "source": "", "labels_file": "labels.txt"}
    detector = Manifest(
        name="small",
        task="detect",
        description="A detector: Größe, naïve",
        input=picture,
        head=head,
        thresholds=Thresholds(),
        graphs=(_GRAPH,),
        figures={"map": 0.25, "runs": [{"ms": 1.5, "on": "cpu"}]},
        **common,
    )
    classifier = Manifest(
        name="small_stage",
        task="classify",
        description="",
        input=picture,
        head=HeadSpec("softmax", {"logits": "logits"}, {}),
        thresholds=Thresholds(),
        graphs=(_GRAPH,),
        stage=StageSpec(("person",), 0.2, 0.8, 0.1),
        **common,
    )
    for one in (detector, classifier):
        write("manifests", f"{one.name}.yaml", dump_manifest(one).encode())


def graphs() -> None:
    """A convolution with a clip and a mean; a Reshape, Softmax and Concat; many operators with a loop."""
    model = onnx.parser.parse_model(_OPERATORS)
    for one in model.graph.initializer:  # The parser does not write raw bytes, which mutants change.
        one.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(one), one.name))
    onnx.checker.check_model(model, full_check=True)
    write("graphs", "operators.onnx", model.SerializeToString(deterministic=True))
    one = OnnxWriter("convolution")
    kernel = np.linspace(-1, 1, 2 * 3 * 9, dtype=np.float32).reshape(2, 3, 3, 3)
    found = one.node("Conv", ["images", one.weight("kernel", kernel)], "found", pads=[1, 1, 1, 1])
    one.node("ReduceMean", [one.relu6(found, "limited")], "logits", axes=[2, 3], keepdims=0)
    write("graphs", "convolution.onnx", one.model({"images": [1, 3, 8, 8]}, {"logits": [1, 2]}))
    two = OnnxWriter("reshape")
    flat = two.node("Reshape", ["images", two.weight("shape", np.array([1, -1]))], "flat")
    sliced = two.node("Softmax", [flat], "shares", axis=1)
    two.node("Concat", [sliced, flat], "both", axis=1)
    write("graphs", "reshape.onnx", two.model({"images": [1, 3, 4, 4]}, {"both": [1, 96]}))


def tflite() -> None:
    """A convolution with a softmax; a mean of float32 and of uint8."""
    schema = schema_or_skip()
    model = schema.ModelT()
    model.version, model.description = 3, "convolution"
    model.buffers = [schema.BufferT() for _ in range(3)]
    for buffer, values in zip(model.buffers[1:], (np.linspace(-1, 1, 2 * 27), np.zeros(2)), strict=True):
        buffer.data = np.frombuffer(values.astype(np.float32).tobytes(), np.uint8)
    model.operatorCodes = [schema.OperatorCodeT() for _ in range(2)]
    for code, number in zip(model.operatorCodes, (3, 25), strict=True):
        code.builtinCode = code.deprecatedBuiltinCode = number
    shapes = {"images": (1, 8, 8, 3), "kernel": (2, 3, 3, 3), "bias": (2,), "found": (1, 8, 8, 2)}
    buffers = {"kernel": 1, "bias": 2}
    graph = schema.SubGraphT()
    graph.tensors = [
        tflite_tensor(schema, name, shape, "float32", buffers.get(name, 0), None)
        for name, shape in (*shapes.items(), ("scores", shapes["found"]))
    ]
    graph.inputs, graph.outputs = np.array([0], np.int32), np.array([4], np.int32)
    graph.operators = [schema.OperatorT(), schema.OperatorT()]
    for index, (operator, inputs, outputs, kind) in enumerate(
        zip(graph.operators, ([0, 1, 2], [3]), ([3], [4]), ("Conv2DOptions", "SoftmaxOptions"), strict=True)
    ):
        operator.opcodeIndex = index
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        operator.builtinOptions = getattr(schema, f"{kind}T")()
    graph.operators[0].builtinOptions.strideW = graph.operators[0].builtinOptions.strideH = 1
    graph.operators[1].builtinOptions.beta = 1.0
    model.subgraphs = [graph]
    write("tflite", "convolution.tflite", packed(model))
    for name, kind in (("mean", {}), ("mean_uint8", {"dtype": "uint8", "quantization": (0.5, 3)})):
        mean_tflite(CORPUS / "tflite" / f"{name}.tflite", **kind)


def openvino_ir() -> None:
    """The ONNX seeds as OpenVINO writes them."""
    import openvino

    for file in sorted((CORPUS / "graphs").iterdir()):
        with tempfile.TemporaryDirectory() as folder:
            xml = Path(folder) / "model.xml"
            openvino.save_model(openvino.convert_model(file), xml, compress_to_fp16=False)
            data = xml.read_bytes() + OpenVinoGraphs.separator + xml.with_suffix(".bin").read_bytes()
        write("openvino_ir", f"{file.stem}.xml_bin", data)


def images() -> None:
    """A small image in each format and coding that OpenCV writes, and headers of refused formats."""
    ramp = np.arange(24, dtype=np.uint8)[:, None, None] * 9
    color = np.broadcast_to(ramp, (24, 32, 3)) + np.arange(96, dtype=np.uint8).reshape(1, 32, 3)
    gray, deep = color[..., 0], color[..., 0].astype(np.uint16) * 257
    alpha = cv2.cvtColor(color, cv2.COLOR_BGR2BGRA)
    for name, image, options in (
        ("baseline.jpg", color, ()),
        ("progressive.jpg", color, (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        ("restart.jpg", color, (cv2.IMWRITE_JPEG_RST_INTERVAL, 2, cv2.IMWRITE_JPEG_OPTIMIZE, 1)),
        ("gray.jpg", gray, ()),
        ("color.png", color, ()),
        ("gray16.png", deep, ()),
        ("alpha.png", alpha, ()),
        ("bilevel.png", gray, (cv2.IMWRITE_PNG_BILEVEL, 1)),
        ("lossy.webp", color, (cv2.IMWRITE_WEBP_QUALITY, 50)),
        ("lossless.webp", alpha, (cv2.IMWRITE_WEBP_QUALITY, 101)),
        ("color.bmp", color, ()),
        ("gray.bmp", gray, ()),
        ("lzw.tiff", color, ()),
        ("plain.tiff", color, (cv2.IMWRITE_TIFF_COMPRESSION, 1)),
        ("gray16.tiff", deep, ()),
        ("color.ppm", color, ()),
        ("gray.pgm", gray, ()),
        ("ascii.pgm", gray, (cv2.IMWRITE_PXM_BINARY, 0)),
        ("bitmap.pbm", gray, ()),
        ("color.pam", color, ()),
    ):
        done, data = cv2.imencode(Path(name).suffix, image, options)
        assert done, name
        write("images", name, data.tobytes())
    write("images", "header.gif", b"GIF89a\x20\0\x18\0\xf0\0\0" + bytes(8))


def messages() -> None:
    """A frame event and detections, as JSON of their fields."""
    values = [
        ["fate", "gated"],
        ["regions", "[[0, 0, 10, 20], [5, 5, 9, 9.5]]"],
        ["camera_motion", "[1,0,0,0,1,0,0,0,1]"],
    ]
    header = {"frame_id": "camera", "sec": 1, "nanosec": 2}
    status = {"name": "gate", "message": "still", "values": values}
    write("frame_events", "gated.json", json.dumps({**header, "status": [status]}).encode())
    passed = {"name": "source", "message": "", "values": [["fate", ""], ["regions", "[]"]]}
    write("frame_events", "passed.json", json.dumps({**header, "status": [passed]}).encode())
    one = {"id": "7", "box": [10.0, 20.0, 4.0, 8.0], "results": [["0", 0.9], ["12", 0.1]]}
    write("detections", "two.json", json.dumps({**header, "detections": [one, {**one, "id": ""}]}).encode())
    scene = {
        "width": 64,
        "height": 48,
        "binning": 1,
        "offset": 0,
        "model": "plumb_bob",
        "d": [0.1, 0, 0, 0, 0],
        "k": [50, 0, 32, 0, 50, 24, 0, 0, 1],
        "rectified": False,
        "depth": [2.0, 2.1, 0, 5],
        "step": 64,
        "encoding": "32FC1",
        "depth_width": 16,
        "static": True,
        "tf": [-0.5, 0.5, -0.5, 0.5, 0.1, 0, 1],
        "frame_id": "base",
        "sec": 1,
        "nanosec": 2,
        "f": 50.0,
        "t": 0.1,
        "disparity": False,
        "detections": [{"id": "7", "box": [30, 20, 20, 16], "results": [["1", 0.9]]}],
    }
    write("localizer", "depth.json", json.dumps(scene).encode())
    write("localizer", "disparity.json", json.dumps({**scene, "disparity": True}).encode())
    raw = {"encoding": "16UC1", "depth": [2000, 0, 2100], "step": 32, "model": "equidistant", "d": []}
    write("localizer", "raw.json", json.dumps({**scene, **raw}).encode())
    write("detections", "none.json", json.dumps({**header, "detections": []}).encode())


if __name__ == "__main__":
    shutil.rmtree(CORPUS, ignore_errors=True)
    for make in (manifests, graphs, tflite, openvino_ir, images, messages):
        make()
    write("parameters", "loop.json", json.dumps(["source", "loop", True]).encode())
    write("node_parameters", "gate.json", json.dumps([["gate", "enabled", True]]).encode())
