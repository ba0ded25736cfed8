"""Shared by the tests of the optimizer: a tiny classifier as a bundle, images, results of candidates."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from model_cases import save_graph
from onnx import helper, numpy_helper

from edge_vision.bundles.manifest import GraphSpec, Manifest
from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.offline.bundle_folder import write_folder
from edge_vision.optimize.agreement import Agreement
from edge_vision.optimize.quantization.make_variant import VariantGraph
from edge_vision.optimize.results import CandidateResult
from edge_vision.optimize.trials.measure import Measurement, Timing

SIDE_PX = 64
CLASSES = 4


def tiny_graph(path: Path, op: str = "Conv", classes: int = CLASSES) -> Path:
    """Convolution, activation, global average pooling, one logit per class.

    op: a name other than Conv is unknown to every runtime.
    """
    rng = np.random.default_rng(1)
    weights = (
        numpy_helper.from_array(rng.normal(0, 0.2, (8, 3, 3, 3)).astype(np.float32), "kernel"),
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


def image_folder(folder: Path, count: int, seed: int = 0, side_px: int = 96) -> Path:
    """A folder of different images. Returns its path."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for number in range(count):
        small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        image = cv2.resize(small, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number:03d}.png"), image)
    return folder


def result(
    name: str,
    relative: float,
    agreement: float = 1.0,
    *,
    precision: str = "fp32",
    runs_in: str = "",
    ratio_band: tuple[float, float] | None = None,
    rss_mb: float = 150.0,
    file_bytes: int = 18_000_000,
    saturation_db: float | None = None,
) -> CandidateResult:
    """A measured candidate. runs_in: the precision that actually runs, by default as requested."""
    band = ratio_band or (relative * 0.98, relative * 1.02)
    timing = Timing(40 * relative, 50 * relative, 60 * relative, (39.0, 41.0), 30.0, 35.0, 40, relative, band)
    actual = {"backend": "onnxruntime", "version": "1", "device": "CPU", "threads": 1}
    measurement = Measurement(
        timing,
        Agreement("f1", agreement, 0.0, 0, 0, 100),
        {**actual, "precision": runs_in or precision},
        1.0,
        rss_mb,
        saturation_db=saturation_db,
    )
    graph = VariantGraph(file_bytes, "0" * 64)
    size, folder = "300x300", f"variants/{name}"
    return CandidateResult(
        name,
        "onnxruntime",
        precision,
        size,
        1,
        "base",
        folder,
        "measured",
        relative=relative,
        graph=graph,
        measurement=measurement,
    )


def failed_result(name: str, reason: str) -> CandidateResult:
    """A candidate whose trial failed."""
    return CandidateResult(name, "onnxruntime", "fp32", "300x300", 1, "base", "variants/x", "failed", reason)


def vit_graph(path: Path, blocks: int = 2, width: int = 32, heads: int = 2, patch_px: int = 16) -> Path:
    """A vision transformer with random weights (Dosovitskiy et al., 2021), as PyTorch exports it: images of
    SIDE_PX, pre-normalisation, CLASSES logits from the class token."""
    rng = np.random.default_rng(6)
    tokens = (SIDE_PX // patch_px) ** 2
    nodes: list[Any] = []
    constants: dict[str, np.ndarray] = {}

    def constant(name: str, values: Any) -> str:
        constants[name] = np.asarray(values)
        return name

    def add(op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def linear(x: str, inside: int, outside: int, name: str) -> str:
        matrix = rng.normal(0, inside**-0.5, (inside, outside)).astype(np.float32)
        product = add("MatMul", [x, constant(f"{name}.matrix", matrix)], f"{name}.product")
        bias = rng.normal(0, 0.1, outside).astype(np.float32)
        return add("Add", [product, constant(f"{name}.bias", bias)], name)

    def norm(x: str, name: str) -> str:
        ones = constant(f"{name}.scale", np.ones(width, np.float32))
        return add("LayerNormalization", [x, ones], name, axis=-1, epsilon=1e-5)

    def parted(x: str, name: str, order: list[int]) -> str:
        shape = constant(f"{name}.shape", np.array([1, tokens + 1, heads, width // heads], np.int64))
        return add("Transpose", [add("Reshape", [x, shape], f"{name}.parts")], name, perm=order)

    def block(x: str, name: str) -> str:
        normal = norm(x, f"{name}.norm")
        query, key, value = (linear(normal, width, width, f"{name}.{part}") for part in ("q", "k", "v"))
        turned = parted(key, f"{name}.ks", [0, 2, 3, 1])
        across = add("MatMul", [parted(query, f"{name}.qs", [0, 2, 1, 3]), turned], f"{name}.across")
        scale = constant(f"{name}.scale", np.float32((width // heads) ** -0.5))
        share = add("Softmax", [add("Mul", [across, scale], f"{name}.scaled")], f"{name}.share", axis=-1)
        mixed = add("MatMul", [share, parted(value, f"{name}.vs", [0, 2, 1, 3])], f"{name}.mixed")
        back = add("Transpose", [mixed], f"{name}.back", perm=[0, 2, 1, 3])
        shape = constant(f"{name}.flat", np.array([1, tokens + 1, width], np.int64))
        seen = linear(add("Reshape", [back, shape], f"{name}.seen"), width, width, f"{name}.mix")
        middle = add("Add", [x, seen], f"{name}.middle")
        wide = linear(norm(middle, f"{name}.second"), width, 4 * width, f"{name}.wide")
        halved = add("Mul", [wide, constant(f"{name}.root", np.float32(0.5**0.5))], f"{name}.halved")
        one = constant(f"{name}.one", np.float32(1.0))
        bent = add("Add", [add("Erf", [halved], f"{name}.erf"), one], f"{name}.bent")
        doubled = add("Mul", [wide, bent], f"{name}.doubled")
        gelu = add("Mul", [doubled, constant(f"{name}.half", np.float32(0.5))], f"{name}.gelu")
        return add("Add", [middle, linear(gelu, 4 * width, width, f"{name}.narrow")], f"{name}.out")

    kernel = constant("kernel", rng.normal(0, 0.03, (width, 3, patch_px, patch_px)).astype(np.float32))
    strides = {"kernel_shape": [patch_px] * 2, "strides": [patch_px] * 2}
    patches = add("Conv", ["images", kernel], "patches", **strides)
    flat = add("Reshape", [patches, constant("rows", np.array([1, width, tokens], np.int64))], "flat")
    first = constant("token", rng.normal(0, 1, (1, 1, width)).astype(np.float32))
    x = add("Concat", [first, add("Transpose", [flat], "columns", perm=[0, 2, 1])], "joined", axis=1)
    x = add(
        "Add",
        [x, constant("places", rng.normal(0, 0.2, (1, tokens + 1, width)).astype(np.float32))],
        "placed",
    )
    for number in range(blocks):
        x = block(x, f"block{number}")
    x = add("Gather", [norm(x, "normal"), constant("at", np.int64(0))], "class", axis=1)
    head = rng.normal(0, 1, (CLASSES, width)).astype(np.float32)
    add(
        "Gemm",
        [x, constant("head", head), constant("zero", np.zeros(CLASSES, np.float32))],
        "logits",
        transB=1,
    )
    weights = tuple(numpy_helper.from_array(values, name) for name, values in constants.items())
    return save_graph(path, nodes, {"images": [1, 3, SIDE_PX, SIDE_PX]}, {"logits": [1, CLASSES]}, weights)
