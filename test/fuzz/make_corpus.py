#!/usr/bin/env python3
"""Writes the corpus, small valid files of each kind: `python test/fuzz/make_corpus.py`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edge_vision.bundles.manifest import GraphSpec, Manifest, dump_manifest
from edge_vision.bundles.onnx_writer import OnnxWriter
from edge_vision.core.model_spec import HeadSpec, InputSpec, StageSpec, Thresholds

CORPUS = Path(__file__).parent / "corpus"
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
    """A convolution with a clip and a mean; a Reshape, Softmax and Concat."""
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
    write("detections", "none.json", json.dumps({**header, "detections": []}).encode())


if __name__ == "__main__":
    shutil.rmtree(CORPUS, ignore_errors=True)
    for make in (manifests, graphs, images, messages):
        make()
    write("parameters", "loop.json", json.dumps(["source", "loop", True]).encode())
    write("node_parameters", "gate.json", json.dumps([["gate", "enabled", True]]).encode())
