"""The model of a study as a bundle in its folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from edge_vision.bundles.manifest import GraphSpec
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.errors import BundleError
from edge_vision.importer.draft import Options, make_draft
from edge_vision.importer.read import READER, READER_PACKAGES, read_model
from edge_vision.importer.run import workspace, write_draft
from edge_vision.offline.output_folder import remove_path
from edge_vision.offline.trials import try_reading
from edge_vision.optimize.candidate import Size
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization import graph_edit
from edge_vision.optimize.quantization.make_variant import write_variant

TFLITE = "tflite"
SHIPPED = "shipped"
_MODEL_FILES = (".onnx", ".tflite", ".pt", ".pth", ".h5", ".pb", ".xml", ".engine")


def source_bundle(model: str, folder: Path) -> Bundle:
    """Write the fp32 ONNX graph of a model to a new folder as a bundle, with dynamic dimensions fixed.

    model: name or folder of a bundle, or a .onnx file, whose head is guessed. A TFLite graph of the bundle is
    copied unchanged to the folder TFLITE beside it. Raises OptimizeError, BundleError.
    """
    path = Path(model).expanduser()
    if path.suffix in _MODEL_FILES:
        return _imported(path, folder)
    return _copied(load_bundle(model), folder)


def _imported(path: Path, folder: Path) -> Bundle:
    if path.suffix == ".tflite":
        raise OptimizeError(
            f"{path}: expected an ONNX file, got TFLite: this optimizer quantizes ONNX graphs"
        )
    with workspace(folder.parent) as temporary:
        try:
            draft = make_draft(read_model(path), Options(), temporary)
        except BundleError as error:
            raise OptimizeError(
                f"{error}; `edge-vision models import {path}` makes a bundle with your own answers"
            ) from None
        return _copied(write_draft(draft, temporary / draft.manifest.name), folder)


def _copied(bundle: Bundle, folder: Path) -> Bundle:
    path = bundle.verify(_fp32_graph(bundle))
    spec = bundle.manifest.input
    try_reading(path, READER, READER_PACKAGES)
    model = graph_edit.load_model(path)
    data = path.read_bytes()
    if 0 in graph_edit.input_sides(model, spec.name):
        graph_edit.resize(model, spec.name, spec.layout, Size.of(spec))
        data = model.SerializeToString(deterministic=True)
    for target in (folder, folder.with_name(TFLITE)):
        shutil.rmtree(target, ignore_errors=True)
    tflite = next((graph for graph in bundle.manifest.graphs if graph.format == "tflite"), None)
    if tflite is not None:
        content = bundle.verify(tflite).read_bytes()
        write_variant(bundle, folder.with_name(TFLITE), content, spec, tflite.precision, "tflite")
    return write_variant(bundle, folder, data, spec, "fp32")


def write_shipped(model: str, folder: Path) -> None:
    """Copy the int8 ONNX graph that a bundle has to a new folder, unchanged; without one, there is none.

    model: as of `source_bundle`. Raises BundleError if the graph is missing or damaged.
    """
    remove_path(folder)
    if Path(model).suffix in _MODEL_FILES:
        return
    bundle = load_bundle(model)
    for graph in bundle.manifest.graphs:
        if (graph.format, graph.precision) == ("onnx", "int8"):
            content = bundle.verify(graph).read_bytes()
            write_variant(bundle, folder, content, bundle.manifest.input, graph.precision)
            return


def _fp32_graph(bundle: Bundle) -> GraphSpec:
    for graph in bundle.manifest.graphs:
        if graph.format == "onnx" and graph.precision == "fp32":
            return graph
    has = ", ".join(f"{graph.format} {graph.precision}" for graph in bundle.manifest.graphs)
    raise OptimizeError(
        f"{bundle.folder}: expected a graph in onnx fp32, the source of all variants, got {has}"
    )
