"""A tiny bundle that can be a stage of a cascade: it scores how red, green and blue a picture is."""

from __future__ import annotations

import hashlib
from pathlib import Path

from model_cases import mean_graph

from edge_vision.bundles.manifest import GraphSpec, Manifest
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.core.model_spec import HeadSpec, InputSpec, StageSpec, Thresholds
from edge_vision.offline.bundle_folder import write_folder

LABELS = ("red", "green", "blue")
RED = StageSpec(("red",), 0.3, 0.6, 0.5)


def color_bundle(folder: Path, stage: StageSpec | None = RED, batch: int | str = "n") -> Bundle:
    """Written below the folder, and opened. batch: a number, or a name for a free one."""
    graph = mean_graph(folder / "color.onnx", (batch, 3, 8, 8)).read_bytes()
    manifest = Manifest(
        name="color",
        version="1.0.0",
        task="classify",
        description="how red, green and blue",
        licence="Apache-2.0",
        source="",
        input=InputSpec("images", 8, 8, std=(255.0,) * 3),
        head=HeadSpec("classifier", {"logits": "logits"}, {"activation": "none"}),
        thresholds=Thresholds(),
        labels_file="labels.txt",
        graphs=(GraphSpec("model.onnx", "onnx", "fp32", hashlib.sha256(graph).hexdigest()),),
        stage=stage,
    )
    place = folder / "color"
    write_folder(place, manifest, {"model.onnx": graph, "labels.txt": "\n".join(LABELS).encode()})
    return load_bundle(str(place))
