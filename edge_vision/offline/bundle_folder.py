"""Installs bundles atomically: written, flushed to disk, then renamed; an incomplete one is never visible."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from edge_vision.bundles.manifest import MANIFEST_FILE, Manifest
from edge_vision.bundles.store import bundles_dir, read_manifest
from edge_vision.errors import BundleError
from edge_vision.offline.manifest_writer import dump_manifest

BUILDING = ".building-"
"""Prefix of unfinished folders in the store, which the next fetch removes; invalid in a bundle's name."""


@contextlib.contextmanager
def store_lock(report: Callable[[str], None]) -> Iterator[None]:
    """One fetch at a time per cache. The kernel releases the lock when the process ends."""
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
    """Write a new folder with the manifest and the other files, by name."""
    folder.mkdir()
    for file, data in {**files, MANIFEST_FILE: dump_manifest(manifest).encode()}.items():
        with (folder / file).open("wb") as out:
            out.write(data)
            out.flush()
            # Against power loss: the name must not be on disk before the bytes.
            os.fsync(out.fileno())


def check_replaceable(folder: Path, names: Iterable[str] = ()) -> None:
    """Raise BundleError unless the folder is absent, or a bundle without foreign files.

    names: files that count as the bundle's own in any case.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        what = "a link" if folder.is_symlink() else "a file"
        raise BundleError(
            f"{folder}: expected a bundle's folder to replace, got {what}; choose another folder"
        )
    own = {MANIFEST_FILE, "LICENSE", *names}
    try:
        manifest = read_manifest(folder)
        own |= {manifest.labels_file, *(file for graph in manifest.graphs for file, _ in graph.files)}
    except (BundleError, OSError, ValueError, RuntimeError) as error:
        if not names:
            why = error if (folder / MANIFEST_FILE).exists() else f"no {MANIFEST_FILE} there"
            raise BundleError(
                f"{folder}: expected a bundle to replace, got another folder ({why}); choose another folder"
            ) from None
    own |= {parent.as_posix() for file in own for parent in PurePosixPath(file).parents}
    foreign = sorted({path.relative_to(folder).as_posix() for path in folder.rglob("*")} - own)
    if foreign:
        raise BundleError(
            f"{folder}: expected a folder with a bundle's own files to replace, got also "
            f"{', '.join(foreign[:3])}; move them away, or choose another folder"
        )


def put(new: Path, folder: Path, old: Path) -> None:
    """Rename the new folder to `folder`; a bundle that exists there becomes `old`.

    Raises BundleError if something else is there.
    """
    check_replaceable(folder, [path.name for path in new.iterdir()])
    if folder.exists() or folder.is_symlink():
        folder.rename(old)
    new.rename(folder)
