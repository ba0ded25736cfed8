"""The model that was given, as a bundle in the study's folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from edge_vision.backends.trial import try_reading
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.errors import BundleError
from edge_vision.importer.draft import Options, make_draft
from edge_vision.importer.read import READER, READER_PACKAGES, read_model
from edge_vision.importer.run import workspace, write_draft
from edge_vision.optimize.candidate import Size
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization import graph_edit
from edge_vision.optimize.quantization.variant import write_variant

TFLITE = "tflite"


def source_bundle(model: str, folder: Path) -> Bundle:
    """The fp32 ONNX graph of a bundle (a name or a folder) or of a .onnx file, whose head is guessed, written
    to a folder that is not there yet, open dimensions fixed. A TFLite graph that the bundle has too goes into
    the folder TFLITE beside it, as it is. Raises OptimizeError, BundleError."""
    path = Path(model).expanduser()
    if path.suffix in (".onnx", ".tflite", ".pt", ".pth", ".h5", ".pb", ".xml", ".engine"):
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
                f"{error}; `python -m edge_vision models import {path}` makes a bundle with your own answers"
            ) from None
        return _copied(write_draft(draft, temporary / draft.manifest.name), folder)


def _copied(bundle: Bundle, folder: Path) -> Bundle:
    graphs = [
        graph for graph in bundle.manifest.graphs if graph.format == "onnx" and graph.precision == "fp32"
    ]
    if not graphs:
        has = ", ".join(f"{graph.format} {graph.precision}" for graph in bundle.manifest.graphs)
        raise OptimizeError(
            f"{bundle.folder}: expected a graph in onnx fp32, which all is made from, got {has}"
        )
    path = bundle.verify(graphs[0])
    spec = bundle.manifest.input
    try_reading(path, READER, READER_PACKAGES)
    model = graph_edit.load_model(path)
    data = path.read_bytes()
    if 0 in graph_edit.input_sides(model, spec.name):
        graph_edit.resize(model, spec.name, spec.layout, Size.of(spec))
        data = model.SerializeToString(deterministic=True)
    for place in (folder, folder.with_name(TFLITE)):
        shutil.rmtree(place, ignore_errors=True)
    ready = next((graph for graph in bundle.manifest.graphs if graph.format == "tflite"), None)
    if ready is not None:
        made = bundle.verify(ready).read_bytes()
        write_variant(bundle, folder.with_name(TFLITE), made, spec, ready.precision, "tflite")
    return write_variant(bundle, folder, data, spec, "fp32")
