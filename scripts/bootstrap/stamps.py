"""Which steps of the set-up are done, and with which inputs.

A stamp is written last, so an interrupted step has none and runs again. It contains the hash of the step's
inputs, and sizes and times of the files that the step created outside .venv.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path


def key_of(*parts: str | Path) -> str:
    """The hash of strings, files and folders (names and contents, without byte code)."""
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
        """True if the step was done with this key and its files outside .venv are unchanged."""
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
        """The key of the last run of the step; "" without one."""
        try:
            return str(json.loads((self._folder / step).read_text())["key"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def drop(self, step: str) -> None:
        (self._folder / step).unlink(missing_ok=True)

    def write(self, step: str, key: str, files: Iterable[Path] = ()) -> None:
        """Record a step as done, atomically."""
        stamp = {"key": key, "files": {str(file): _state(file) for file in files}}
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = self._folder / f".{step}.{os.getpid()}"
        unfinished.write_text(json.dumps(stamp, indent=1))
        os.replace(unfinished, self._folder / step)


def _state(file: Path) -> list[int]:
    """Size and modification time, [] for a missing file. Hashes would delay a set-up with nothing to do."""
    try:
        status = file.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
