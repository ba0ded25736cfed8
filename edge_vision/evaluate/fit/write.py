"""Writes a fitted stage as a bundle: the base's graph with the head on top, and the manifest."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.bundles.manifest import GraphSpec, Manifest
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.core.model_spec import HeadSpec, Thresholds
from edge_vision.evaluate.fit.base import FrozenFeatures
from edge_vision.evaluate.fit.run import NOTHING_LABEL, WANTED_LABEL, FittedStage
from edge_vision.offline.bundle_folder import put, write_folder
from edge_vision.offline.linear_head import LOGITS, with_linear_head

GRAPH_FILE, LABELS_FILE, LICENCE_FILE = "model.onnx", "labels.txt", "LICENSE"


def write_bundle(
    folder: Path,
    name: str,
    base: FrozenFeatures,
    fitted: FittedStage,
    labels: list[str],
    figures: dict[str, Any],
) -> Bundle:
    """Write the bundle to folder/name, replacing an existing one, and open it. Raises BundleError."""
    graph = with_linear_head(base.graph, fitted.head.weight.astype("float32"), fitted.head.bias)
    manifest = manifest_of(name, base, fitted, labels, graph, figures)
    files = {GRAPH_FILE: graph, LABELS_FILE: f"{NOTHING_LABEL}\n{WANTED_LABEL}\n".encode()}
    licence = base.bundle.folder / LICENCE_FILE
    if licence.is_file():
        files[LICENCE_FILE] = licence.read_bytes()
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder) as temporary:
        new = Path(temporary) / name
        write_folder(new, manifest, files)
        put(new, folder / name, Path(temporary) / "old")
    return load_bundle(f"{folder / name}{os.sep}")


def write_head(folder: Path, name: str, fitted: FittedStage, figures: dict[str, Any]) -> None:
    """Write what a recipe of `model_zoo/recipes.py` needs: the weights as name.npz, and name.json."""
    folder.mkdir(parents=True, exist_ok=True)
    head, stage = fitted.head, asdict(fitted.stage)
    np.savez(folder / f"{name}.npz", weight=head.weight.astype(np.float32), bias=np.float32(head.bias))
    about = {"stage": stage, "figures": figures}
    (folder / f"{name}.json").write_text(json.dumps(about, indent=1, allow_nan=False) + "\n")


def manifest_of(
    name: str,
    base: FrozenFeatures,
    fitted: FittedStage,
    labels: list[str],
    graph: bytes,
    figures: dict[str, Any],
) -> Manifest:
    """The manifest of a fitted stage."""
    before = base.bundle.manifest
    return Manifest(
        name=name,
        version="1.0.0",
        task="classify",
        description=f"Stage of a cascade: does a crop show {', '.join(labels)}? On {before.name}",
        licence=before.licence,
        source=f"{before.source}; head fitted by `python -m edge_vision evaluate fit-cascade`",
        input=base.input_spec,
        head=HeadSpec(type="classifier", outputs={"logits": LOGITS}, options={"activation": "softmax"}),
        thresholds=Thresholds(),
        labels_file=LABELS_FILE,
        graphs=(GraphSpec(GRAPH_FILE, "onnx", "fp32", hashlib.sha256(graph).hexdigest()),),
        figures=figures,
        stage=fitted.stage,
    )
