"""Shared by the tests of updates: small bundles, a repository with its keys, the operator's clock."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from edge_vision.bundles.manifest import GraphSpec, dump_manifest
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.model_zoo.recipes import RECIPES
from edge_vision.updates.release import Release
from edge_vision.updates.repository import Repository

PROVENANCE = {"trained_by": "A. Operator", "data": "40,000 frames of the yard, 2026"}
GROUP = "fleet/a"
GRAPH_BYTES = 300_000


def make_bundle(folder: Path, version: str = "1.0.0", graph: bytes | None = None) -> Bundle:
    """A bundle whose graph is no ONNX file: enough for everything but running it."""
    folder.mkdir(parents=True)
    data = (version.encode() * GRAPH_BYTES)[:GRAPH_BYTES] if graph is None else graph
    (folder / "model.onnx").write_bytes(data)
    (folder / "labels.txt").write_text("person\nbicycle\n")
    spec = GraphSpec("model.onnx", "onnx", "fp32", hashlib.sha256(data).hexdigest())
    manifest = RECIPES["ssdlite_mobilenet_v2_coco"].manifest
    manifest = replace(manifest, name="yard", version=version, graphs=(spec,), labels_file="labels.txt")
    (folder / "bundle.yaml").write_text(dump_manifest(manifest))
    return load_bundle(str(folder))


class Operator:
    """A repository below a folder, with all keys in one place and a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self.base, self.folder, self.keys = folder, folder / "repository", folder / "keys"
        self.now = datetime.now(timezone.utc).replace(microsecond=0)
        self.bundles = 0
        self.repository = self.with_keys(self.keys)
        self.root = self.repository.init()
        self.repository.add_key(GROUP)

    def with_keys(self, *folders: Path) -> Repository:
        return Repository(self.folder, folders, lambda: self.now)

    def wait(self, **duration: float) -> None:
        self.now += timedelta(**duration)

    def publish(self, version: str, group: str = GROUP, channel: str = "stable", **options: Any) -> Release:
        self.bundles += 1
        bundle = make_bundle(self.base / f"bundle{self.bundles}", version)
        return self.repository.publish(bundle, group, channel, PROVENANCE, **options)

    def key_id(self, label: str) -> str:
        """The id of the newest key with this label."""
        newest = max(self.keys.glob(f"{label}-*.pem"), key=lambda path: path.stat().st_mtime_ns)
        return newest.stem.rpartition("-")[2]
