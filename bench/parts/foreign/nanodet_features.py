"""NanoDet's feature maps and last layers, and layers fitted to them by least squares."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
from onnx import numpy_helper
from parts.foreign.bundle_writer import bundle_graph
from parts.foreign.graph_builder import Graph

from edge_vision.bundles.store import cache_dir, load_bundle
from edge_vision.core.frame import Frame
from edge_vision.core.preprocess import Preprocessor

STRIDES = (8, 16, 32)
BINS, CLASSES = 11, 80
FITTING_CLIPS = ("bikes.mp4", "segway_crowd_pan.mp4", "tvshow_van_cuts.mp4")


def nanodet_maps() -> tuple[Graph, list[str], list[str]]:
    """NanoDet with the outputs of its last convolutions, biased, and their inputs, finest first."""
    model = bundle_graph("nanodet")
    nodes = {node.output[0]: node for node in model.graph.node}
    splits = sorted((node for node in model.graph.node if node.op_type == "Split"), key=lambda n: n.name)
    maps = [node.input[0] for node in splits]
    del model.graph.output[:]
    model.graph.node.remove(nodes["rows"])
    return Graph(model), maps, [nodes[nodes[one].input[0]].input[0] for one in maps]


def class_layers() -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and bias of NanoDet's class scores, by feature map."""
    graph, maps, _ = nanodet_maps()
    values = {one.name: numpy_helper.to_array(one) for one in graph.model.graph.initializer}
    nodes = {node.output[0]: node for node in graph.model.graph.node}
    found = []
    for name in maps:
        add = nodes[name]
        weights, bias = values[nodes[add.input[0]].input[1]], values[add.input[1]].ravel()
        found.append((weights[:CLASSES], bias[:CLASSES]))
    return found


@cache
def fitted_layers() -> list[np.ndarray]:
    """(5, k + 1) for each feature map: x, y, log w, log h, objectness of a cell from its k features and 1, by
    least squares on NanoDet's own distances and scores, weighted by the score."""
    graph, maps, features = nanodet_maps()
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.finish([*maps, *features]).SerializeToString())
    samples: list[list[tuple[np.ndarray, ...]]] = [[], [], []]
    preprocessor = Preprocessor(load_bundle("nanodet").manifest.input)
    for clip in FITTING_CLIPS:
        for image in frames(cache_dir() / "video" / clip, 12):
            tensor = preprocessor.prepare(Frame(image, 0, "", "bgr8"))[0]
            values = session.run([*maps, *features], {"images": tensor})
            for level in range(3):
                samples[level].append(_samples(values[level][0], values[3 + level][0]))
    return [_least_squares(*map(np.concatenate, zip(*level, strict=True))) for level in samples]


def _samples(logits: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, ...]:
    """Features with 1, targets and weights of each cell."""
    bins = logits[CLASSES:].reshape(4, BINS, -1)
    shares = np.exp(bins - bins.max(1, keepdims=True))
    left, top, right, bottom = np.einsum("sbn,b->sn", shares / shares.sum(1, keepdims=True), np.arange(BINS))
    highest = logits[:CLASSES].max(0).ravel()
    sizes = [np.log(np.maximum(one, 0.2)) for one in (left + right, top + bottom)]
    targets = np.stack([0.5 + (right - left) / 2, 0.5 + (bottom - top) / 2, *sizes, highest + 3.0], axis=1)
    cells = features.reshape(len(features), -1).T
    inputs = np.concatenate((cells, np.ones((len(cells), 1))), axis=1)
    return inputs, targets, 1.0 / (1.0 + np.exp(-highest)) + 1e-3


def _least_squares(inputs: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    scaled = inputs * weights[:, None]
    gram = scaled.T @ inputs + 1e-3 * np.eye(inputs.shape[1])
    return np.asarray(np.linalg.solve(gram, scaled.T @ targets).T, np.float32)


def frames(clip: Path, count: int) -> list[np.ndarray]:
    """Frames of a clip, evenly over it."""
    capture = cv2.VideoCapture(str(clip))
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = set(np.linspace(0, total - 2, count).astype(int).tolist())
    found = [capture.retrieve()[1] for at in range(total) if capture.grab() and at in wanted]
    capture.release()
    return found


def cell_points() -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) centres of the cells, in cells, and (n,) strides."""
    points, strides = [], []
    for stride in STRIDES:
        side = 416 // stride
        y, x = np.mgrid[:side, :side]
        points.append(np.stack((x.ravel(), y.ravel()), 1) + 0.5)
        strides.append(np.full(side * side, stride, np.float32))
    return np.concatenate(points), np.concatenate(strides)
