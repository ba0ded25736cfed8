"""Job: makes the bundle of one precision and size out of the fp32 bundle."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.bundles.atomic_write import write_folder
from edge_vision.bundles.manifest import GraphSpec
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import InputSpec
from edge_vision.core.preprocess import Preprocessor
from edge_vision.optimize.candidate import Size
from edge_vision.optimize.clips import stored
from edge_vision.optimize.quantization import gptq, graph_edit, graph_session, ptq
from edge_vision.optimize.quantization.int8_recipe import Int8Recipe

CHECKED_PICTURES = 4
FITTED_PICTURES = 32
"""Whose inputs of the layers are looked at: more cost time and change nothing."""


def run(args: Mapping[str, Any]) -> dict[str, Any]:
    """args: source, out (folders), precision, size [w, h], recipe (None for fp32 and fp16), calibration
    (folder), ranges (file), kept (names of layers' nodes). Raises OptimizeError, BundleError."""
    out = Path(args["out"])
    shutil.rmtree(out, ignore_errors=True)
    source = load_bundle(f"{args['source']}{os.sep}")
    size = Size(*args["size"])
    spec = replace(source.manifest.input, width_px=size.width_px, height_px=size.height_px)
    model = graph_edit.load_model(source.verify(source.manifest.graphs[0]))
    if size != Size.of(source.manifest.input):
        graph_edit.resize(model, spec.name, spec.layout, size)
    result: dict[str, Any] = {}
    if args["precision"] == "fp16":
        result["halved"] = graph_edit.halve_weights(model)
    recipe = Int8Recipe(**args["recipe"]) if args["recipe"] else None
    if recipe:
        model, exact = _int8(model, spec, recipe, args)
        result.update(exact=exact, effective=ptq.effective(model), why=recipe.why)
    data = model.SerializeToString(deterministic=True)
    bundle = write_variant(source, out, data, spec, args["precision"])
    return {**result, "bytes": len(data), "sha256": bundle.manifest.graphs[0].sha256}


def _int8(model: Any, spec: InputSpec, recipe: Int8Recipe, args: Mapping[str, Any]) -> tuple[Any, str]:
    """The quantized model, and the file with what exact arithmetic makes of it."""
    out = Path(args["out"])
    fp32 = out.with_name(f"{out.name}.fp32.onnx")
    try:
        fp32.write_bytes(model.SerializeToString())
        tensors = input_tensors(spec, stored(Path(args["calibration"])))
        if recipe.library_default:
            made = ptq.library_default(fp32, tensors)
        else:
            folded = graph_session.folded(fp32)
            ranges = known_ranges(folded, tensors, Path(args["ranges"]))
            fits = known_fits(folded, ranges, recipe, tensors, Path(args["ranges"]))
            made = ptq.quantized(folded, ranges, recipe, kept=args["kept"], fits=fits)
        exact = _exact(
            made, fp32, tensors[:: max(1, len(tensors) // CHECKED_PICTURES)][:CHECKED_PICTURES], out
        )
    finally:
        fp32.unlink(missing_ok=True)
    return made, str(exact)


def _exact(made: Any, fp32: Path, tensors: Sequence[np.ndarray], out: Path) -> Path:
    """Outputs of the fp32 graph and of the quantized one carried out exactly: see `measure`."""
    folder = out.with_name(f"{out.name}.check")
    folder.mkdir(exist_ok=True)
    arrays = {}
    for prefix, session in (
        ("fp32", graph_session.session(str(fp32))),
        ("exact", graph_session.session(made, exact=True)),
    ):
        names = [output.name for output in session.get_outputs()]
        for number, tensor in enumerate(tensors):
            values = session.run(names, {session.get_inputs()[0].name: tensor})
            arrays.update({f"{prefix}.{number}.{n}": v for n, v in zip(names, values, strict=True)})
    np.savez(folder / "tensors.npz", **{f"{i:03d}": tensor for i, tensor in enumerate(tensors)})  # type: ignore[arg-type]
    np.savez(folder / "exact.npz", **arrays)
    return folder / "exact.npz"


def known_ranges(folded: Any, tensors: Sequence[np.ndarray], file: Path) -> dict[str, tuple[float, float]]:
    """The ranges that were found for this size before, or those of these tensors."""
    ranges = ptq.read_ranges(file)
    if ranges is None:
        ranges = ptq.calibrate(folded, tensors)
        ptq.write_ranges(ranges, file)
    return ranges


def known_fits(
    folded: Any, ranges: gptq.Ranges, recipe: Int8Recipe, tensors: Sequence[np.ndarray], file: Path
) -> dict[str, gptq.Fit]:
    """The roundings that were found for this size before, beside the file of the ranges, or those now."""
    place = file.with_suffix(f".{recipe.largest_weight}{'s' * recipe.symmetric}.npz")
    fits = gptq.read_fits(place)
    if fits is None:
        moments = gptq.moments(folded, tensors[:: -(-len(tensors) // FITTED_PICTURES)], ranges)
        plain = ptq.quantized(folded, ranges, recipe)
        fits = gptq.fits(folded, plain, moments, recipe.largest_weight)
        gptq.write_fits(fits, place)
    return fits


def input_tensors(spec: InputSpec, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """(1, c, h, w) or (1, h, w, c) each, as the nodes would prepare (h, w, 3) uint8 BGR pictures."""
    preprocessor = Preprocessor(spec)
    return [preprocessor.prepare(Frame(picture, 0, "", "bgr8"))[0].copy() for picture in pictures]


def write_variant(
    source: Bundle, out: Path, data: bytes, spec: InputSpec, precision: str, kind: str = "onnx"
) -> Bundle:
    """A bundle like the source with another graph and input size. kind: the graph's format and its file's
    ending. Raises BundleError."""
    told = {"int8_default": "int8"}.get(precision, precision)
    graph = GraphSpec(f"model.{kind}", kind, told, hashlib.sha256(data).hexdigest())
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
