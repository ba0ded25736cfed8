"""Files that survive a power cut: the bytes, then the name, then the folder are flushed to disk."""

from __future__ import annotations

import os
from pathlib import Path

from edge_vision.backends.runtimes.engine_cache import write_file


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file: after a power cut it has the old or the new contents."""
    write_file(path, data)
    sync_folder(path.parent)
