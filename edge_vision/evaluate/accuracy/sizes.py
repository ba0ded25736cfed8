"""Bundles at other input sizes, to compare sizes of one model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from edge_vision.bundles.manifest import GraphSpec
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.offline.bundle_folder import write_folder
from edge_vision.optimize.candidate import Size
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization import graph_edit


def at_sizes(models: Iterable[str], sizes: Sequence[str], folder: Path) -> dict[str, str]:
    """What to call each model at each size -> the bundle to load.

    A model at its own size is itself, at another a copy in `folder` with resized graphs. sizes: none, or as
    those of `optimize`: native, 320, 320x256. Raises EvaluateError, BundleError.
    """
    if not sizes:
        return {model: model for model in models}
    found: dict[str, str] = {}
    for model in models:
        bundle = load_bundle(model)
        native = Size.of(bundle.manifest.input)
        for text in sizes:
            try:
                size = Size.parse(text, native)
                copy = folder / f"{len(found)}"
                loaded = model if size == native else _written(bundle, size, copy)
            except OptimizeError as error:
                raise EvaluateError(f"{model}, --size {text}: {error}") from None
            found[f"{model} at {size}"] = loaded
    return found


def _written(bundle: Bundle, size: Size, folder: Path) -> str:
    """The folder of a copy with resized graphs. Of a bundle's graphs, those in ONNX. Raises OptimizeError."""
    manifest = bundle.manifest
    spec = replace(manifest.input, width_px=size.width_px, height_px=size.height_px)
    files: dict[str, bytes] = {}
    graphs: list[GraphSpec] = []
    for graph in manifest.graphs:
        if graph.format != "onnx":
            continue
        model = graph_edit.load_model(bundle.verify(graph))
        graph_edit.resize(model, spec.name, spec.layout, size)
        files[graph.file] = model.SerializeToString()
        graphs.append(replace(graph, sha256=hashlib.sha256(files[graph.file]).hexdigest()))
    if not graphs:
        raise OptimizeError(
            f"expected a graph in ONNX to resize, got {', '.join(one.format for one in manifest.graphs)}"
        )
    files[manifest.labels_file] = "".join(f"{label}\n" for label in bundle.labels).encode()
    write_folder(folder, replace(manifest, input=spec, graphs=tuple(graphs)), files)
    return f"{folder}{os.sep}"
