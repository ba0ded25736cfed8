"""A copy of a bundle with its graph in another format."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_vision.bundles.manifest import GraphSpec
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.errors import BundleError
from edge_vision.offline.bundle_folder import put, write_folder

FORMATS = {"tflite": ("fp32", "int8", "mixed"), "pte": ("fp32",), "torchscript": ("fp32",)}
"""Format -> the precisions that it takes."""


def _made(model: Any, form: str) -> bytes:
    """An ONNX model in a format. The converters are imported late: they take a second, and some an extra."""
    if form == "tflite":
        from edge_vision.optimize.tflite.conversion import to_tflite

        return to_tflite(model)
    from edge_vision.export.torch_backends import require

    require("torch")
    from edge_vision.export import torch_programs

    return torch_programs.executorch(model) if form == "pte" else torch_programs.torchscript(model)


def export(model: str, form: str, precision: str, out: Path) -> Bundle:
    """Write a bundle with the graphs of the given one and its graph of this precision in another format.

    model: name or folder of a bundle with ONNX graphs. out: a new or empty folder, or a bundle that is
    replaced, which may be the given one. Raises BundleError, OptimizeError, BackendUnavailable.
    """
    if precision not in FORMATS[form]:
        raise BundleError(f"expected a precision of {', '.join(FORMATS[form])} for {form}, got {precision}")
    bundle = load_bundle(model)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as temporary:
        data = _made(_onnx(bundle, precision, Path(temporary)), form)
        folder = Path(temporary, "bundle")
        _write(bundle, form, precision, data, folder)
        put(folder, out, Path(temporary, "old"))
    return load_bundle(f"{out}{os.sep}")


def _onnx(bundle: Bundle, precision: str, temporary: Path) -> Any:
    """The folded model with fixed dimensions; one with quantizers as it is."""
    from edge_vision.optimize.quantization import graph_edit, graph_session
    from edge_vision.optimize.source import source_bundle

    if precision == "fp32":
        source = source_bundle(f"{bundle.folder}{os.sep}", temporary / "source")
        return graph_session.folded(source.verify(source.manifest.graphs[0]))
    return graph_edit.load_model(bundle.graph_path(("onnx",), precision)[0])


def _write(bundle: Bundle, form: str, precision: str, data: bytes, folder: Path) -> None:
    name = f"model{'' if precision == 'fp32' else '_' + precision}.{form}"
    graph = GraphSpec(name, form, precision, hashlib.sha256(data).hexdigest())
    others = [one for one in bundle.manifest.graphs if (one.format, one.precision) != (form, precision)]
    manifest = replace(bundle.manifest, graphs=(*others, graph))
    kept = {file for one in others for file, _ in one.files}
    for one in others:
        bundle.verify(one)
    extras = {name for name in (manifest.labels_file, "LICENSE") if (bundle.folder / name).is_file()}
    files = {one: (bundle.folder / one).read_bytes() for one in kept | extras}
    write_folder(folder, manifest, {**files, name: data})
