"""Which step of the set-up is done, and with which inputs.

A stamp is written last, so a step that was stopped half way has none and is done again. It holds the
hash of the step's inputs, and the sizes and times of the files that the step left outside .venv.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path


def key_of(*parts: str | Path) -> str:
    """The hash of texts, files, and folders (names and contents, without byte code)."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(b"text\0" + part.encode() + b"\0")
            continue
        for file in _files_of(part):
            digest.update(b"file\0" + str(file.relative_to(part.parent)).encode() + b"\0")
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and file.suffix != ".pyc")


class Stamps:
    """The stamps in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def is_done(self, step: str, key: str) -> bool:
        """True when the step was done with this key, and what it left outside is as it was."""
        try:
            stamp = json.loads((self._folder / step).read_text())
        except (OSError, ValueError):
            return False
        return (
            isinstance(stamp, dict)
            and stamp.get("key") == key
            and all(_state(Path(file)) == state for file, state in stamp.get("files", {}).items())
        )

    def key(self, step: str) -> str:
        """The key that the step was done with; empty when it was not."""
        try:
            return str(json.loads((self._folder / step).read_text())["key"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def drop(self, step: str) -> None:
        (self._folder / step).unlink(missing_ok=True)

    def write(self, step: str, key: str, files: Iterable[Path] = ()) -> None:
        """Say that the step is done; all of it or nothing reaches the disk."""
        stamp = {"key": key, "files": {str(file): _state(file) for file in files}}
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = self._folder / f".{step}.{os.getpid()}"
        unfinished.write_text(json.dumps(stamp, indent=1))
        os.replace(unfinished, self._folder / step)


def _state(file: Path) -> list[int]:
    """Size and time; cheap, so that a set-up with nothing to do stays under a second. [] for no file."""
    try:
        status = file.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
