"""What the tests of the optimizer share: a tiny classifier as a bundle, pictures, rows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from model_cases import save_graph
from onnx import helper, numpy_helper

from edge_vision.bundles.manifest import GraphSpec, Manifest
from edge_vision.bundles.place import write_folder
from edge_vision.core.specs import HeadSpec, InputSpec, Thresholds

SIDE_PX = 64
CLASSES = 4


def tiny_graph(path: Path, op: str = "Conv", classes: int = CLASSES, wide: float = 1.0) -> Path:
    """Convolution, activation, mean over the map, one number per class. `op` other than Conv is made up.

    wide: a factor on the first kernel, so that int8 has more or less to lose.
    """
    rng = np.random.default_rng(1)
    weights = (
        numpy_helper.from_array(rng.normal(0, 0.2 * wide, (8, 3, 3, 3)).astype(np.float32), "kernel"),
        numpy_helper.from_array(rng.normal(0, 0.3, (classes, 8)).astype(np.float32), "matrix"),
        numpy_helper.from_array(rng.normal(0, 0.1, classes).astype(np.float32), "bias"),
    )
    attributes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]} if op == "Conv" else {}
    nodes = [
        helper.make_node(op, ["images", "kernel"], ["map"], name="first", **attributes),
        helper.make_node("Relu", ["map"], ["active"], name="active"),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"], name="pooled"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "matrix", "bias"], ["logits"], name="last", transB=1),
    ]
    return save_graph(path, nodes, {"images": [1, 3, SIDE_PX, SIDE_PX]}, {"logits": [1, classes]}, weights)


def tiny_bundle(folder: Path, graph: Path, head: str = "classifier", labels: int = CLASSES) -> Path:
    """A bundle around a graph. Returns its folder."""
    data = graph.read_bytes()
    manifest = Manifest(
        name="tiny",
        version="1.0.0",
        task="classify" if head == "classifier" else "detect",
        description="made by a test",
        licence="Apache-2.0",
        source="",
        input=InputSpec("images", SIDE_PX, SIDE_PX, mean=(127.0,) * 3, std=(64.0,) * 3),
        head=HeadSpec(head, {"logits": "logits"} if head == "classifier" else {"rows": "logits"}, {}),
        thresholds=Thresholds(),
        labels_file="labels.txt",
        graphs=(GraphSpec("model.onnx", "onnx", "fp32", hashlib.sha256(data).hexdigest()),),
    )
    names = "".join(f"thing {i}\n" for i in range(labels)).encode()
    write_folder(folder, manifest, {"model.onnx": data, "labels.txt": names})
    return folder


def pictures(folder: Path, count: int, seed: int = 0, side_px: int = 96) -> Path:
    """A folder of different pictures."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for number in range(count):
        small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        picture = cv2.resize(small, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number:03d}.png"), picture)
    return folder


def row(name: str, relative: float, agreement: float = 1.0, **others: Any) -> dict[str, Any]:
    """A measured row, as `study` makes it."""
    return {
        "id": name,
        "backend": "onnxruntime",
        "precision": "fp32",
        "size": "300x300",
        "parent": "base",
        "relative": relative,
        "ratio_to_parent": relative,
        "ratio_band": [relative * 0.98, relative * 1.02],
        "p50_ms": 40 * relative,
        "p95_ms": 50 * relative,
        "rss_mb": 150.0,
        "bytes": 18_000_000,
        "agreement": agreement,
        "status": "measured",
        "reason": "",
        **others,
    }
