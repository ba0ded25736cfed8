"""Checks of the cache and of the bundles in its store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from edge_vision.bundles.store import FETCHABLE, bundles_dir, cache_dir, list_bundles, load_bundle
from edge_vision.cli.doctor.check import ERROR, INSTALLATION, OK, WARN, Check
from edge_vision.errors import EdgeVisionError
from edge_vision.nodes.interface.specs import DETECTOR

# The two known bundles take 40 MB, and fetching them downloads their sources.
LOW_DISK_MB = 200.0


def checks() -> Iterator[Check]:
    """The cache, then each bundle that is installed or can be fetched."""
    yield _cache(cache_dir())
    for name in sorted({*FETCHABLE, *list_bundles()}):
        yield _bundle(name)


def _cache(folder: Path) -> Check:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    writable = os.access(existing, os.W_OK | os.X_OK)
    free_mb = shutil.disk_usage(existing).free / 1e6
    size_mb = _size_bytes(folder) / 1e6
    values = {
        "path": str(folder),
        "size_mb": round(size_mb, 1),
        "free_mb": round(free_mb, 1),
        "writable": writable,
    }
    text = f"{folder}: {size_mb:.0f} MB, {'writable' if writable else 'read-only'}, {free_mb:.0f} MB free"
    if not folder.exists():
        text = f"{folder}: does not exist yet, " + ("can be created" if writable else "cannot be created")
    if not writable:
        return Check(
            INSTALLATION, "cache", OK, f"{text}; sufficient while the bundles below are installed", values
        )
    if free_mb < LOW_DISK_MB:
        return Check(INSTALLATION, "cache", WARN, f"{text}: free some space before you fetch models", values)
    return Check(INSTALLATION, "cache", OK, text, values)


def _size_bytes(folder: Path) -> int:
    total = 0
    for where, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except OSError:  # Removed in the meantime.
                continue
    return total


def _bundle(name: str) -> Check:
    """Manifest, files and hashes, as `python -m edge_vision models verify` checks them."""
    label = f"bundle {name}"
    is_default = name == DETECTOR.param("model").default
    if not (bundles_dir() / name).is_dir():
        text = f"not fetched yet: python -m edge_vision models fetch {name}"
        if is_default:
            return Check(INSTALLATION, label, ERROR, f"the detector's default model is {text}")
        return Check(INSTALLATION, label, OK, text)
    try:
        bundle = load_bundle(name)
        for graph in bundle.manifest.graphs:
            bundle.verify(graph)
    except EdgeVisionError as error:
        return Check(INSTALLATION, label, ERROR, str(error))
    graphs = [f"{graph.format} {graph.precision}" for graph in bundle.manifest.graphs]
    text = f"{bundle.version}, {bundle.manifest.task}, {', '.join(graphs)}: hashes match"
    values = {"version": bundle.version, "sha256": bundle.sha256, "graphs": graphs}
    return Check(INSTALLATION, label, OK, text, values)
