"""A copy of a bundle with its graph in another format."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_vision.bundles.manifest import GraphSpec
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.errors import BundleError
from edge_vision.export.torch_backends import require
from edge_vision.offline.bundle_folder import put, write_folder
from edge_vision.optimize.quantization import graph_session
from edge_vision.optimize.quantization.graph_edit import load_model
from edge_vision.optimize.source import source_bundle
from edge_vision.optimize.tflite.conversion import to_tflite


def _pte(model: Any) -> bytes:
    require("torch")
    from edge_vision.export.torch_programs import executorch

    return executorch(model)


def _torchscript(model: Any) -> bytes:
    require("torch")
    from edge_vision.export.torch_programs import torchscript

    return torchscript(model)


FORMATS: dict[str, tuple[Callable[[Any], bytes], tuple[str, ...]]] = {
    "tflite": (to_tflite, ("fp32", "int8", "mixed")),
    "pte": (_pte, ("fp32",)),
    "torchscript": (_torchscript, ("fp32",)),
}
"""Format -> the function that makes it from an ONNX model, and the precisions that it takes."""


def export(model: str, form: str, precision: str, out: Path) -> Bundle:
    """Write a bundle with the graphs of the given one and its graph of this precision in another format.

    model: name or folder of a bundle with ONNX graphs. out: a new or empty folder, or a bundle that is
    replaced, which may be the given one. Raises BundleError, OptimizeError, BackendUnavailable.
    """
    make, precisions = FORMATS[form]
    if precision not in precisions:
        raise BundleError(f"expected a precision of {', '.join(precisions)} for {form}, got {precision}")
    bundle = load_bundle(model)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as temporary:
        data = make(_onnx(bundle, precision, Path(temporary)))
        folder = Path(temporary, "bundle")
        _write(bundle, form, precision, data, folder)
        put(folder, out, Path(temporary, "old"))
    return load_bundle(f"{out}{os.sep}")


def _onnx(bundle: Bundle, precision: str, temporary: Path) -> Any:
    """The folded model with fixed dimensions; one with quantizers as it is."""
    if precision == "fp32":
        source = source_bundle(f"{bundle.folder}{os.sep}", temporary / "source")
        return graph_session.folded(source.verify(source.manifest.graphs[0]))
    return load_model(bundle.graph_path(("onnx",), precision)[0])


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
