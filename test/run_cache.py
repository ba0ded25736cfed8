"""The cache of one test run: links to the user's models and clips, everything else separate."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from edge_vision.bundles.store import cache_dir

SHARED = ("bundles", "downloads", "video")
"""Folders whose entries a run reads through links. New entries stay in its own cache."""

_USER = pytest.StashKey[tuple[Path, "State"]]()

State = dict[str, tuple[int, int]]
"""File below a cache -> size and modification time in ns."""


def set_up(config: pytest.Config) -> None:
    """Give this process and its children a new cache with links to the shared folders."""
    user = cache_dir()
    config.stash[_USER] = (user, state_of(user, SHARED))
    own = tempfile.TemporaryDirectory(prefix="edge_vision_test_cache_")
    config.add_cleanup(own.cleanup)
    link_shared(user, Path(own.name))
    # Child processes and workers of pytest-xdist inherit it, and link to the same originals.
    os.environ["EDGE_VISION_CACHE"] = own.name
    # One index of fonts for all of them, which takes seconds to make.
    os.environ.setdefault("MPLCONFIGDIR", f"{own.name}/matplotlib")


def link_shared(source: Path, target: Path) -> None:
    """Link each entry of the shared folders, so that new entries do not change the source."""
    for name in SHARED:
        (target / name).mkdir(parents=True)
        for entry in (source / name).glob("[!.]*"):
            (target / name / entry.name).symlink_to(entry.resolve())


def state_of(cache: Path, folders: tuple[str, ...] = ("",)) -> State:
    """The state of all files below these folders of a cache."""
    files = (file for name in folders for file in (cache / name).rglob("*") if file.is_file())
    return {
        str(file.relative_to(cache)): (file.stat().st_size, file.stat().st_mtime_ns)
        for file in files
        if not file.name.startswith(".")
    }


def changed_by_run(config: pytest.Config) -> list[str]:
    """Files of the shared folders in the user's cache that were added, changed or removed during the run."""
    user, before = config.stash[_USER]
    return sorted({str(user / name) for name, _ in before.items() ^ state_of(user, SHARED).items()})
