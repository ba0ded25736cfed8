"""Puts finished bundles in their place: written, flushed to disk, then moved; no half one is ever seen."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from edge_vision.bundles.manifest import MANIFEST_FILE, Manifest, dump_manifest
from edge_vision.bundles.store import bundles_dir

BUILDING = ".building-"
"""Prefix of unfinished folders in the store, which the next fetch removes; no bundle's name can start so."""


@contextlib.contextmanager
def store_lock(report: Callable[[str], None]) -> Iterator[None]:
    """One fetch at a time for each cache. The kernel drops the lock when the process ends, in any way."""
    store = bundles_dir()
    store.mkdir(parents=True, exist_ok=True)
    with (store / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("another fetch is running, waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        for unfinished in store.glob(BUILDING + "*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        yield


def write_folder(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Make the folder of a bundle, with its manifest and the other files by name."""
    folder.mkdir()
    for file, data in {**files, MANIFEST_FILE: dump_manifest(manifest).encode()}.items():
        with (folder / file).open("wb") as out:
            out.write(data)
            out.flush()
            # A robot loses power: the name must not be on disk before the bytes are.
            os.fsync(out.fileno())


def put(new: Path, place: Path, old: Path) -> None:
    """Move the new folder to its place; what was there goes with the temporary folder."""
    if place.exists() or place.is_symlink():
        place.rename(old)
    new.rename(place)
