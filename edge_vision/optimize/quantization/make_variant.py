"""Trial: makes the bundle of one precision and input size from the fp32 bundle."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.bundles.manifest import PRECISIONS, GraphSpec
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import InputSpec
from edge_vision.core.preprocess import Preprocessor
from edge_vision.offline.bundle_folder import write_folder
from edge_vision.optimize.candidate import LIBRARY_DEFAULT, Size
from edge_vision.optimize.data.clips import read_images
from edge_vision.optimize.quantization import graph_edit, graph_session, ptq
from edge_vision.optimize.quantization.decoding_tail import comparing_nodes
from edge_vision.optimize.quantization.int8_recipe import Int8Recipe
from edge_vision.optimize.quantization.layer_quantizer import layer_quantizer
from edge_vision.optimize.quantization.stored_graph import stored_bytes
from edge_vision.optimize.tflite.conversion import to_tflite

_CHECKED_IMAGES = 4

_VARIANT = re.compile(rf"(_({'|'.join(PRECISIONS)}|{LIBRARY_DEFAULT})_[0-9]+x[0-9]+)+$")


@dataclass(frozen=True, slots=True)
class VariantTask:
    """source, out: bundle folders. recipe: None for fp32 and fp16. calibration: folder with images.
    ranges: file with what was measured on them, created if missing. fp32_nodes: nodes that stay in fp32.
    graph_format: onnx or tflite."""

    source: str
    out: str
    precision: str
    size: Size
    recipe: Int8Recipe | None = None
    calibration: str = ""
    ranges: str = ""
    fp32_nodes: tuple[str, ...] = ()
    graph_format: str = "onnx"


@dataclass(frozen=True, slots=True)
class VariantGraph:
    """The graph file of a variant. For int8 also: exact, the outputs of exact arithmetic (see `measure`); the
    summary of the graph, and why this recipe was chosen."""

    bytes: int
    sha256: str
    exact: str = ""
    quantization: ptq.QuantizationSummary | None = None
    why: str = ""


def run(task: VariantTask) -> VariantGraph:
    """Write the bundle. Raises OptimizeError, BundleError."""
    out = Path(task.out)
    shutil.rmtree(out, ignore_errors=True)
    source = load_bundle(f"{task.source}{os.sep}")
    spec = replace(source.manifest.input, width_px=task.size.width_px, height_px=task.size.height_px)
    model = graph_edit.load_model(source.verify(source.manifest.graphs[0]))
    if task.size != Size.of(source.manifest.input):
        graph_edit.resize(model, spec.name, spec.layout, task.size)
    if task.precision == "fp16":
        graph_edit.halve_weights(model)
    exact, summary = "", None
    if task.recipe:
        model, exact = _int8(model, spec, task.recipe, task)
        # What it counts are ONNX Runtime's kernels.
        summary = ptq.summarize(model) if task.graph_format == "onnx" else None
    if task.graph_format == "onnx":
        data = stored_bytes(model)
    else:
        data = converted(model, quantized=task.recipe is not None)
    bundle = write_variant(source, out, data, spec, task.precision, task.graph_format)
    sha256 = bundle.manifest.graphs[0].sha256
    return VariantGraph(len(data), sha256, exact, summary, task.recipe.why if task.recipe else "")


def converted(model: Any, quantized: bool) -> bytes:
    """The TFLite file of an ONNX model. quantized: it has quantizers. Raises OptimizeError."""
    if not quantized:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "model.onnx")
            file.write_bytes(model.SerializeToString())
            model = graph_session.folded(file)
    return to_tflite(model)


def _int8(model: Any, spec: InputSpec, recipe: Int8Recipe, task: VariantTask) -> tuple[Any, str]:
    """The quantized model, and the file with the outputs of exact arithmetic; "" if the graph selects."""
    out = Path(task.out)
    fp32 = out.with_name(f"{out.name}.fp32.onnx")
    try:
        fp32.write_bytes(model.SerializeToString())
        tensors = input_tensors(spec, read_images(Path(task.calibration)))
        if recipe.library_default:
            quantized = ptq.library_default(fp32, tensors)
        else:
            folded = graph_session.folded(fp32)
            quantizer = layer_quantizer(folded, tensors, recipe, Path(task.ranges))
            quantized = quantizer.without_nodes(task.fp32_nodes)
        checked = tensors[:: max(1, len(tensors) // _CHECKED_IMAGES)][:_CHECKED_IMAGES]
        # Outputs in another order or number cannot be compared.
        exact = "" if comparing_nodes(quantized) else str(_write_exact(quantized, fp32, checked, out))
    finally:
        fp32.unlink(missing_ok=True)
    return quantized, exact


def _write_exact(quantized: Any, fp32: Path, tensors: Sequence[np.ndarray], out: Path) -> Path:
    """Write the outputs of the fp32 graph, and of the quantized one in exact arithmetic, for `measure`."""
    folder = out.with_name(f"{out.name}.check")
    folder.mkdir(exist_ok=True)
    arrays = {}
    for prefix, session in (
        ("fp32", graph_session.session(str(fp32))),
        ("exact", graph_session.session(quantized, exact=True)),
    ):
        names = [output.name for output in session.get_outputs()]
        for number, tensor in enumerate(tensors):
            values = session.run(names, {session.get_inputs()[0].name: tensor})
            arrays.update({f"{prefix}.{number}.{n}": v for n, v in zip(names, values, strict=True)})
    np.savez(folder / "tensors.npz", **{f"{i:03d}": tensor for i, tensor in enumerate(tensors)})  # type: ignore[arg-type]
    np.savez(folder / "exact.npz", **arrays)
    return folder / "exact.npz"


def input_tensors(spec: InputSpec, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """(1, c, h, w) or (1, h, w, c) tensors of (h, w, 3) uint8 BGR images, preprocessed as in the nodes."""
    preprocessor = Preprocessor(spec)
    return [preprocessor.prepare(Frame(image, 0, "", "bgr8"))[0].copy() for image in images]


def name_without_variant(name: str) -> str:
    """The name of a bundle without the precisions and sizes that `write_variant` added."""
    return _VARIANT.sub("", name)


def write_variant(
    source: Bundle, out: Path, data: bytes, spec: InputSpec, precision: str, graph_format: str = "onnx"
) -> Bundle:
    """Write a copy of the source bundle with another graph and input size. Raises BundleError.

    graph_format: of the graph, and suffix of its file.
    """
    stated = "int8" if precision == LIBRARY_DEFAULT else precision
    graph = GraphSpec(f"model.{graph_format}", graph_format, stated, hashlib.sha256(data).hexdigest())
    stem = re.sub(r"[^a-z0-9_]", "_", f"_{precision}_{Size.of(spec)}")
    manifest = replace(
        source.manifest,
        name=f"{source.name[: 64 - len(stem)]}{stem}",
        input=spec,
        graphs=(graph,),
        figures={},
        labels_file="labels.txt",
    )
    labels = "".join(f"{label}\n" for label in source.labels).encode()
    files = {graph.file: data, "labels.txt": labels}
    licence = source.folder / "LICENSE"
    if licence.is_file() and not licence.is_symlink():
        files["LICENSE"] = licence.read_bytes()
    out.parent.mkdir(parents=True, exist_ok=True)
    write_folder(out, manifest, files)
    return load_bundle(f"{out}{os.sep}")
