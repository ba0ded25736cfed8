"""Output folders: a command deletes and overwrites only its own results.

A marker file identifies the command that owns the results in a folder. Without it, existing files belong to
the user and are kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

from edge_vision.errors import OutputError

_MARKER_TEXT = (
    "The command that this file is named after may replace the results that it wrote in this folder.\n"
)
_PROCESS = re.compile(r"process (\d+)")


def marker_path(folder: Path, command: str) -> Path:
    """The marker file of a command in a folder."""
    return folder / f".edge_vision-{command}"


def check_subfolders(folder: Path, names: Iterable[str]) -> None:
    """Raises OutputError where a file has the place of a folder that a command writes to."""
    for path in (folder / name for name in names):
        if found := _instead_of_folder(path):
            raise OutputError(f"{path}: expected a folder, got {found}: move it away, and repeat the command")


def _instead_of_folder(path: Path) -> str:
    """What is there; "" for a folder or nothing."""
    if path.is_dir() or not os.path.lexists(path):
        return ""
    return "a link to nothing" if path.is_symlink() and not path.exists() else "a file"


def claim_folder(
    folder: Path, command: str, names: Iterable[str] = ("*",), inputs: Iterable[str | Path] = ()
) -> None:
    """Create the folder if missing, and add the command's marker. Other files are not changed.

    names: patterns of the entries that the command writes or removes. inputs: see `check_inputs`. Raises
    OutputError if such an entry exists without the marker, or is an input.
    """
    names, marker = tuple(names), marker_path(folder, command)
    if found := _instead_of_folder(folder):
        raise OutputError(
            f"{folder}: expected a folder for the results, got {found}; choose another with --out"
        )
    check_inputs(folder, inputs, names)
    if marker.is_file():
        return
    others = _matching(folder, names)
    if others:
        raise OutputError(
            f"{folder}: expected a new folder or one that `{command}` made, got one with "
            f"{', '.join(others[:3])} and without {marker.name}; choose another with --out"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        marker.write_text(_MARKER_TEXT, "utf-8")
    except OSError as error:
        raise OutputError(
            f"{folder}: expected a folder to write to, got: {error.strerror}; choose another with --out"
        ) from None


@contextlib.contextmanager
def locked_folder(folder: Path, command: str) -> Iterator[None]:
    """Keep other processes of the command out of a claimed folder. The kernel releases the lock when this
    process ends. Raises OutputError if another one has it."""
    marker = marker_path(folder, command)
    try:
        opened = marker.open("r+b", buffering=0)
    except OSError as error:
        raise OutputError(
            f"{marker}: expected a file to write to, got: {error.strerror}; choose another folder with --out"
        ) from None
    with opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            number = _PROCESS.search(opened.read(4096).decode("utf-8", "replace"))
            raise OutputError(
                f"{folder}: expected no other running `{command}` with this --out, got "
                f"{number[0] if number else 'one'}: wait for its end, stop it, or choose another --out"
            ) from None
        except OSError:
            pass  # A network folder without locks.
        with contextlib.suppress(OSError):
            opened.write(f"{_MARKER_TEXT}Last used by process {os.getpid()}.\n".encode())
            opened.truncate()
        yield


def release_folder(folder: Path, command: str) -> None:
    """Remove the command's marker and the folder, if nothing else is in it: a new run that failed at once."""
    marker = marker_path(folder, command)
    if folder.is_dir() and [*folder.iterdir()] == [marker]:
        marker.unlink()
        folder.rmdir()


def require_marker(folder: Path, command: str) -> None:
    """Raise OutputError if the folder lacks the command's marker."""
    marker = marker_path(folder, command)
    if not marker.is_file():
        raise OutputError(
            f"{folder}: expected a folder that `{command}` made, got one without {marker.name}; "
            f"choose another folder"
        )


def remove_path(path: Path) -> None:
    """Remove a file, a link (not its target) or a folder tree, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_inputs(folder: Path, inputs: Iterable[str | Path], names: Iterable[str] = ("*",)) -> None:
    """Raise OutputError if an input is the folder, or lies in an entry of it that matches one of the names.

    inputs: files and folders; a path that does not exist, such as a URL, is ignored.
    """
    patterns = tuple(names)
    for source in inputs:
        path = Path(os.path.expanduser(source))
        if not os.path.exists(path):
            continue
        # Both a link inside the folder and the target of a link outside it would be replaced.
        pairs = ((path.absolute(), folder.absolute()), (path.resolve(), folder.resolve()))
        if any(_hits(one, output, patterns) for one, output in pairs):
            raise OutputError(
                f"{source}: expected an input outside the output folder, got one in {folder} that the "
                f"results would replace; choose another with --out"
            )


def _hits(path: Path, folder: Path, patterns: tuple[str, ...]) -> bool:
    if not path.is_relative_to(folder):
        return False
    entry = path.relative_to(folder).parts[:1]
    return not entry or any(fnmatch(entry[0], pattern) for pattern in patterns)


def _matching(folder: Path, names: tuple[str, ...]) -> list[str]:
    there = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    return [name for name in there if any(fnmatch(name, pattern) for pattern in names)]
