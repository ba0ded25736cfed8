"""Small graphs as other tools export them: several roles in one output, unnamed nodes, fixed shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper, numpy_helper
from onnx.onnx_pb import ModelProto

SIDE_PX, CLASSES, BINS = 32, 3, 8


class GraphBuilder:
    """Adds nodes without names."""

    def __init__(self, seed: int = 3) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._rng = np.random.default_rng(seed)

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Returns the first output; others are named name.1, ..."""
        name = f"t{len(self.nodes)}"
        names = [name, *(f"{name}.{i}" for i in range(1, outputs))]
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        return name

    def constant(self, values: Any, kind: type = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def conv(self, tensor: str, inside: int, outside: int, side: int = 1, stride: int = 1) -> str:
        scale = (2.0 / (inside * side * side)) ** 0.5
        kernel = self.constant(self._rng.normal(0, scale, (outside, inside, side, side)))
        bias = self.constant(self._rng.normal(0, 0.3, outside))
        pads = [side // 2] * 4
        return self.node("Conv", tensor, kernel, bias, strides=[stride] * 2, pads=pads)

    def trunk(self, tensor: str, channels: int = 16) -> str:
        """Two convolutions with activations; 1/4 of the image's size."""
        inside = 3
        for _ in range(2):
            tensor = self.node("LeakyRelu", self.conv(tensor, inside, channels, 3, 2), alpha=0.1)
            inside = channels
        return tensor

    def model(self, outputs: dict[str, list[int]], opset: int = 17, side: int | str = SIDE_PX) -> ModelProto:
        inputs = {"images": [1, 3, side, side]}
        values = [[helper.make_tensor_value_info(n, 1, s) for n, s in v.items()] for v in (inputs, outputs)]
        graph = helper.make_graph(self.nodes, "foreign", *values, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def distances_and_scores(opset: int = 17) -> ModelProto:
    """One convolution for scores and distances, decoded to one output: as NanoDet, and as YOLOv8 with its
    convolution over a distribution."""
    build = GraphBuilder()
    cells = (SIDE_PX // 4) ** 2
    both = build.conv(build.trunk("images"), 16, CLASSES + 4 * BINS)
    sizes = build.constant([CLASSES, 4 * BINS], np.int64)
    parts = build.node("Split", both, sizes, axis=1, outputs=2)
    scores = build.node("Sigmoid", parts)
    rows = build.node("Reshape", scores, build.constant([1, CLASSES, cells], np.int64))
    bins = build.node("Reshape", f"{parts}.1", build.constant([1, 4, BINS, cells], np.int64))
    shares = build.node("Softmax", build.node("Transpose", bins, perm=[0, 2, 1, 3]), axis=1)
    expectation = build.constant(np.arange(BINS).reshape(1, BINS, 1, 1))
    distances = build.node("Conv", shares, expectation)
    boxes = build.node("Mul", distances, build.constant(100.0))
    boxes = build.node("Reshape", boxes, build.constant([1, 4, cells], np.int64))
    build.nodes.append(helper.make_node("Concat", [boxes, rows], ["rows"], axis=1))
    return build.model({"rows": [1, 4 + CLASSES, cells]}, opset)


def best_cells() -> ModelProto:
    """The best ten cells, sorted in the graph."""
    build = GraphBuilder()
    scores = build.node(
        "Reshape", build.conv(build.trunk("images"), 16, 1), build.constant([1, -1], np.int64)
    )
    best = build.node("TopK", scores, build.constant([10], np.int64), outputs=2)
    at = build.node("Cast", f"{best}.1", to=1)
    joined = build.node("Concat", best, at, axis=0)
    build.nodes.append(helper.make_node("Identity", [joined], ["rows"]))
    return build.model({"rows": [2, 10]})


def fixed_shapes() -> ModelProto:
    """A pyramid level with a constant size, and a channel shuffle and rows with constant shapes."""
    build = GraphBuilder()
    side = SIDE_PX // 4
    fine = build.trunk("images")
    coarse = build.conv(fine, 16, 16, 3, 2)
    size = build.constant([1, 16, side, side], np.int64)
    same = build.node("Add", fine, build.node("Resize", coarse, "", "", size, mode="nearest"))
    split = build.node("Reshape", same, build.constant([1, 2, 8, side, side], np.int64))
    swapped = build.node("Transpose", split, perm=[0, 2, 1, 3, 4])
    joined = build.node("Reshape", swapped, build.constant([1, 16, side, side], np.int64))
    rows = build.node("Reshape", build.conv(joined, 16, 5), build.constant([1, 5, side * side], np.int64))
    build.nodes.append(helper.make_node("Transpose", [rows], ["rows"], perm=[0, 2, 1]))
    return build.model({"rows": [1, side * side, 5]})


def images(count: int = 8, side: int = SIDE_PX, seed: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 1, (1, 3, side, side)).astype(np.float32) for _ in range(count)]


def sorted_boxes() -> ModelProto:
    """The best ten cells as rows of box, score and class; the boxes are those of the cells."""
    build, side = GraphBuilder(), SIDE_PX // 4
    flat = build.node("Reshape", build.conv(build.trunk("images"), 16, 1), build.constant([1, -1], np.int64))
    scores = build.node("TopK", build.node("Sigmoid", flat), build.constant([10], np.int64), outputs=2)
    y, x = np.mgrid[:side, :side] * 4.0
    boxes = build.constant(np.stack((x, y, x + 4, y + 4), -1).reshape(-1, 4))
    chosen = build.node("Gather", boxes, f"{scores}.1", axis=0)
    score = build.node("Unsqueeze", scores, build.constant([2], np.int64))
    kind = build.node("Mul", score, build.constant(0.0))
    build.nodes.append(helper.make_node("Concat", [chosen, score, kind], ["logits"], axis=2))
    return build.model({"logits": [1, 10, 6]})


def queries() -> ModelProto:
    """The ten best cells go through another layer: a selection between layers, as in RT-DETR."""
    build = GraphBuilder()
    trunk = build.trunk("images")
    features = build.node("Reshape", trunk, build.constant([16, -1], np.int64))
    scores = build.node("Reshape", build.conv(trunk, 16, 1), build.constant([-1], np.int64))
    at = f"{build.node('TopK', scores, build.constant([10], np.int64), outputs=2)}.1"
    chosen = build.node("Transpose", build.node("Gather", features, at, axis=1), perm=[1, 0])
    weights = build.constant(np.random.default_rng(4).normal(0, 0.3, (16, 4)))
    build.nodes.append(helper.make_node("MatMul", [chosen, weights], ["rows"]))
    return build.model({"rows": [10, 4]})
