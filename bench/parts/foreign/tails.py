"""Trained features with the tails of other detectors.

The tails have the operators, roles and ranges of the originals; their layers are the trained ones, or fitted
to them by least squares on other frames than the evaluated ones.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from parts.foreign.bundle_writer import bundle_graph, make_manifest, on_nanodet, save_bundle
from parts.foreign.graph_builder import Graph, float16_weights, nhwc
from parts.foreign.nanodet_features import (
    BINS,
    CLASSES,
    cell_points,
    class_layers,
    fitted_layers,
    nanodet_maps,
)

from edge_vision.bundles.manifest import Manifest
from edge_vision.bundles.store import load_bundle
from edge_vision.core.model_spec import HeadSpec, Thresholds
from edge_vision.detect.heads.ssd import ssd_mobilenet_v2_anchors


def yolov8(folder: Path) -> Manifest:
    """YOLOv8's tail on NanoDet: softmax, a convolution over each distribution, boxes in pixels beside scores.
    Dynamic axes, opset 21, no names."""
    graph, maps, _ = nanodet_maps()
    flat = [graph.node("Reshape", one, graph.constant([0, CLASSES + 4 * BINS, -1], np.int64)) for one in maps]
    joined = graph.node("Concat", *flat, axis=2)
    logits, bins = graph.node(
        "Split", joined, graph.constant([CLASSES, 4 * BINS], np.int64), axis=1, outputs=2
    )
    shaped = graph.node("Reshape", bins, graph.constant([0, 4, BINS, -1], np.int64))
    shares = graph.node("Softmax", graph.node("Transpose", shaped, perm=[0, 2, 1, 3]), axis=1)
    expected = graph.node("Conv", shares, graph.constant(np.arange(BINS).reshape(1, BINS, 1, 1)))
    sides = graph.node("Reshape", expected, graph.constant([0, 4, -1], np.int64))
    near, far = graph.node("Split", sides, graph.constant([2, 2], np.int64), axis=1, outputs=2)
    points, strides = cell_points()
    centre = graph.constant(points.T[None])
    first, last = graph.node("Sub", centre, near), graph.node("Add", centre, far)
    middle = graph.node("Div", graph.node("Add", first, last), graph.constant(2.0))
    boxes = graph.node("Concat", middle, graph.node("Sub", last, first), axis=1)
    pixels = graph.node("Mul", boxes, graph.constant(strides[None, None]))
    graph.node("Concat", pixels, graph.node("Sigmoid", logits), axis=1, name="columns")
    model = onnx.version_converter.convert_version(graph.finish(["columns"]), 21)
    for axis, dim in zip("bchw", model.graph.input[0].type.tensor_type.shape.dim, strict=True):
        if axis != "c":
            dim.dim_param = axis
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.name = ""
    return save_bundle(folder, model, on_nanodet("yolov8", HeadSpec("yolov8", {"columns": "columns"}, {})))


def yolox(folder: Path) -> Manifest:
    """YOLOX's tail on NanoDet's features: fitted offsets, log sizes, objectness. Float16 weights."""
    graph, _, features = nanodet_maps()
    parts = []
    for feature, (weights, bias), fitted in zip(features, class_layers(), fitted_layers(), strict=True):
        regression = graph.conv(feature, fitted[:4, :-1, None, None], fitted[:4, -1])
        objectness = graph.node("Sigmoid", graph.conv(feature, fitted[4:, :-1, None, None], fitted[4:, -1]))
        classes = graph.node("Sigmoid", graph.conv(feature, weights, bias))
        joined = graph.node("Concat", regression, objectness, classes, axis=1)
        parts.append(graph.node("Reshape", joined, graph.constant([1, 5 + CLASSES, -1], np.int64)))
    graph.node("Transpose", graph.node("Concat", *parts, axis=2), perm=[0, 2, 1], name="rows")
    model = float16_weights(graph.finish(["rows"]))
    manifest = on_nanodet("yolox", HeadSpec("yolox", {"rows": "rows"}, {}))
    return save_bundle(folder, model, replace(manifest, thresholds=Thresholds(0.3, 0.6, 100)))


def rtdetr(folder: Path) -> Manifest:
    """RT-DETR's tail on NanoDet's features: the best cells as queries, attention, inverse sigmoids."""
    graph, _, features = nanodet_maps()
    rng, queries, side = np.random.default_rng(0), 100, 416.0
    points, strides = cell_points()
    layers = list(zip(features, class_layers(), fitted_layers(), strict=True))
    width = class_layers()[0][0].shape[1]
    memory = graph.node("Concat", *(graph.rows(one, width) for one in features), axis=1)
    logits = graph.node(
        "Concat", *(graph.rows(graph.conv(f, *layer), CLASSES) for f, layer, _ in layers), axis=1
    )
    raw = graph.node(
        "Concat",
        *(graph.rows(graph.conv(f, fit[:4, :-1, None, None], fit[:4, -1]), 4) for f, _, fit in layers),
        axis=1,
    )
    offsets, sizes = graph.node("Split", raw, graph.constant([2, 2], np.int64), axis=2, outputs=2)
    grid = graph.constant((points - 0.5)[None])
    cells = graph.node("Concat", graph.node("Add", offsets, grid), graph.node("Exp", sizes), axis=2)
    boxes = graph.node("Mul", cells, graph.constant(strides[None, :, None] / side))
    best = graph.node("ReduceMax", logits, axes=[2], keepdims=0)
    _, at = graph.node("TopK", best, graph.constant([queries], np.int64), axis=1, outputs=2)
    index = graph.node("Unsqueeze", at, graph.constant([2], np.int64))

    def gathered(tensor: str, channels: int) -> str:
        wide = graph.node("Expand", index, graph.constant([1, queries, channels], np.int64))
        return str(graph.node("GatherElements", tensor, wide, axis=1))

    target = gathered(memory, width)
    q, k, v = (graph.linear(target, rng.normal(0, width**-0.5, (width, width))) for _ in range(3))
    scores = graph.node("MatMul", q, graph.node("Transpose", k, perm=[0, 2, 1]))
    shares = graph.node("Softmax", graph.node("Mul", scores, graph.constant(width**-0.5)), axis=2)
    attended = graph.node("Add", target, graph.node("MatMul", shares, v))
    norm = graph.node(
        "LayerNormalization", attended, graph.constant(np.ones(width)), graph.constant(np.zeros(width))
    )
    hidden = graph.node("Relu", graph.linear(norm, rng.normal(0, width**-0.5, (width, 4 * width))))
    last = graph.linear(hidden, rng.normal(0, 0.1 * (4 * width) ** -0.5, (4 * width, 4 + CLASSES)))
    shift, change = graph.node("Split", last, graph.constant([4, CLASSES], np.int64), axis=2, outputs=2)
    clipped = graph.node("Clip", gathered(boxes, 4), graph.constant(1e-5), graph.constant(1.0 - 1e-5))
    odds = graph.node("Div", clipped, graph.node("Sub", graph.constant(1.0), clipped))
    graph.node("Sigmoid", graph.node("Add", graph.node("Log", odds), shift), name="boxes")
    graph.node("Add", gathered(logits, CLASSES), change, name="logits")
    head = HeadSpec("detr", {"logits": "logits", "boxes": "boxes"}, {})
    return save_bundle(folder, graph.finish(["logits", "boxes"]), on_nanodet("rtdetr", head))


def efficientdet(folder: Path) -> Manifest:
    """The SSD with EfficientDet's tail: anchors, boxes, TopK and NMS, a dynamic number of boxes; NHWC."""
    best, side = 100, 300.0
    bundle = load_bundle("ssdlite_mobilenet_v2_coco")
    graph = Graph(bundle_graph(bundle.name))
    anchors = ssd_mobilenet_v2_anchors(300, 300)[None] / side
    middle, size = (graph.constant(part) for part in (anchors[..., :2], anchors[..., 2:]))
    codes = graph.node("Div", "box_encodings", graph.constant([10.0, 10.0, 5.0, 5.0]))
    shifts, scales = graph.node("Split", codes, graph.constant([2, 2], np.int64), axis=2, outputs=2)
    centre = graph.node("Add", graph.node("Mul", shifts, size), middle)
    half = graph.node("Mul", graph.node("Mul", graph.node("Exp", scales), size), graph.constant(0.5))
    boxes = graph.node("Concat", *(graph.node(op, centre, half) for op in ("Sub", "Add")), axis=2)
    bounds = (graph.constant([value], np.int64) for value in (1, 91, 2))
    scores = graph.node("Sigmoid", graph.node("Slice", "class_logits", *bounds))
    highest = graph.node("ReduceMax", scores, axes=[2], keepdims=0)
    top, at = graph.node("TopK", highest, graph.constant([best], np.int64), axis=1, outputs=2)
    classes = graph.node("Gather", graph.node("ArgMax", scores, axis=2, keepdims=0), graph.flat(at), axis=1)
    chosen = graph.node("Gather", boxes, graph.flat(at), axis=1)
    by_class = graph.node("Unsqueeze", top, graph.constant([1], np.int64))
    limits = (graph.constant(best, np.int64), graph.constant(0.6), graph.constant(0.05))
    kept = graph.node("NonMaxSuppression", chosen, by_class, *limits)
    last = graph.flat(graph.node("Slice", kept, *(graph.constant([v], np.int64) for v in (2, 3, 1))))
    for name, tensor in (("boxes", chosen), ("scores", top)):
        graph.node("Gather", tensor, last, axis=1, name=name)
    graph.node("Cast", graph.node("Gather", classes, last, axis=1), to=1, name="classes")
    outputs = {name: name for name in ("boxes", "scores", "classes")}
    options = {"box_order": "yxyx", "box_unit": "relative"}
    head = HeadSpec("decoded", outputs, options)
    spec = replace(bundle.manifest.input, layout="nhwc")
    model = nhwc(graph.finish(list(outputs)))
    return save_bundle(folder, model, make_manifest("efficientdet", spec, head, bundle.labels, 0.5))
