"""The files of a trial that runs on another machine: what has to be there, and what it has made."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_vision.optimize.trials.executor import FOLDER, Trial

State = Mapping[str, tuple[int, int]]
"""File, relative to the folder -> its size and time of modification."""


def input_files(trial: Trial[Any], folder: Path) -> list[str]:
    """The files that a trial may read, relative to the study's folder: all files of each folder that its task
    names, and of the folder of each file, as some files come in pairs."""
    found: set[Path] = set()
    for text in _texts(asdict(trial.task)):
        path = folder / text
        if text and path.is_dir():
            found |= set(_files(path))
        elif text and path.is_file():
            found |= {path} if path.parent == folder else set(_files(path.parent))
    return sorted(str(path.relative_to(folder)) for path in found)


def _texts(value: Any) -> Iterator[str]:
    """All texts in a mapping, list or tuple."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def state_of(folder: Path) -> State:
    """All files in a folder, without those with which a trial is started."""
    return {
        str(path.relative_to(folder)): (status.st_size, status.st_mtime_ns)
        for path in _files(folder)
        for status in (os.stat(path),)
        if path.parent.name != FOLDER or path.suffix == ".log"
    }


def made_files(folder: Path, before: State) -> list[str]:
    """The files that are new or changed since, relative to the folder."""
    return sorted(file for file, state in state_of(folder).items() if before.get(file) != state)
