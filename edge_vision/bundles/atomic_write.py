"""Puts finished bundles in their place: written, flushed to disk, then moved; no half one is ever seen."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from edge_vision.bundles.manifest import MANIFEST_FILE, Manifest, dump_manifest
from edge_vision.bundles.store import bundles_dir, read_manifest
from edge_vision.errors import BundleError

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


def check_replaceable(place: Path, names: Iterable[str] = ()) -> None:
    """Raise BundleError where something other than a bundle, or a bundle with files beside its own, is there.

    names: files that count as the bundle's own too, whatever its manifest says.
    """
    if not place.exists() and not place.is_symlink():
        return
    if place.is_symlink() or not place.is_dir():
        what = "a link" if place.is_symlink() else "a file"
        raise BundleError(f"{place}: expected a bundle's folder to replace, got {what}; choose another place")
    own = {MANIFEST_FILE, "LICENSE", *names}
    try:
        manifest = read_manifest(place)
        own |= {manifest.labels_file, *(file for graph in manifest.graphs for file, _ in graph.files)}
    except (BundleError, OSError, ValueError, RuntimeError) as error:
        if not names:
            why = error if (place / MANIFEST_FILE).exists() else f"no {MANIFEST_FILE} there"
            raise BundleError(
                f"{place}: expected a bundle to replace, got another folder ({why}); choose another place"
            ) from None
    own |= {parent.as_posix() for file in own for parent in PurePosixPath(file).parents}
    foreign = sorted({path.relative_to(place).as_posix() for path in place.rglob("*")} - own)
    if foreign:
        raise BundleError(
            f"{place}: expected a folder with a bundle's own files to replace, got also "
            f"{', '.join(foreign[:3])}; move them away, or choose another place"
        )


def put(new: Path, place: Path, old: Path) -> None:
    """Move the new folder to its place; the bundle that was there goes with the temporary folder.

    Raises BundleError where something else is there.
    """
    check_replaceable(place, [path.name for path in new.iterdir()])
    if place.exists() or place.is_symlink():
        place.rename(old)
    new.rename(place)
