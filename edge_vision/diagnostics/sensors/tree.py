"""Reads files of /proc and /sys below a root folder. A failure is a value that states the reason."""

from __future__ import annotations

import errno
import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path

# A sysfs file is one page at most; /proc/stat of a large machine is some hundred lines.
LONGEST_BYTES = 1 << 17


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A figure that cannot be read, with the reason; never 0."""

    reason: str

    def __str__(self) -> str:
        return f"unavailable: {self.reason}"


Value = float | int | str | Unavailable


def number(value: Value) -> float | None:
    """The figure as a number, None if it is unavailable or text."""
    return None if isinstance(value, (Unavailable, str)) else float(value)


class Tree:
    """The files below a root folder: "/", or a copy in a test."""

    def __init__(self, root: str | Path = "/") -> None:
        self.root = Path(root)

    def text(self, path: str) -> str | Unavailable:
        """The text of a file, stripped."""
        try:
            with open(self.root / path, "rb") as file:
                return file.read(LONGEST_BYTES).decode("utf-8", "replace").strip()
        except OSError as error:
            return Unavailable(f"/{path}: {_reason(error)}")

    def number(self, path: str) -> float | Unavailable:
        """The content of a file as a number."""
        text = self.text(path)
        if isinstance(text, Unavailable):
            return text
        try:
            return float(text)
        except ValueError:
            return Unavailable(f"/{path}: expected a number, got '{text[:20]}'")

    def find(self, *patterns: str) -> list[str]:
        """The paths that match any pattern, relative to the root, in natural order (cpu2 before cpu10)."""
        found = {path for pattern in patterns for path in glob.glob(pattern, root_dir=self.root)}
        return sorted(found, key=_natural)


def _natural(path: str) -> list[tuple[int, str]]:
    parts = re.findall(r"[0-9]+|[^0-9]", path)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _reason(error: OSError) -> str:
    if error.errno == errno.EACCES:
        return "permission denied"
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return "does not exist"
    return os.strerror(error.errno) if error.errno else str(error)
