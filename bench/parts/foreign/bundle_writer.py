"""The bundles of the foreign graphs: manifests, labels and files in out/bench/foreign/models/."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from parts.common import REPO

from edge_vision.bundles.manifest import GraphSpec, Manifest
from edge_vision.bundles.store import load_bundle
from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.offline.bundle_folder import write_folder

FOLDER = REPO / "out" / "bench" / "foreign" / "models"
LABELS: dict[str, Sequence[str]] = {}


def bundle_graph(name: str) -> Any:
    bundle = load_bundle(name)
    return onnx.load(str(bundle.verify(bundle.manifest.graphs[0])))


def make_manifest(
    name: str, spec: InputSpec, head: HeadSpec, labels: Sequence[str], score: float
) -> Manifest:
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


def on_nanodet(name: str, head: HeadSpec) -> Manifest:
    bundle = load_bundle("nanodet")
    return replace(
        make_manifest(name, bundle.manifest.input, head, bundle.labels, 0.4),
        thresholds=bundle.manifest.thresholds,
    )


def save_bundle(folder: Path, model: Any, manifest: Manifest) -> Manifest:
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
