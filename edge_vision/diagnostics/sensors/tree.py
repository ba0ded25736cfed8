"""Files of /proc and /sys below a root folder, read so that a failure is a value with its reason."""

from __future__ import annotations

import errno
import glob
import os
from dataclasses import dataclass
from pathlib import Path

# A sysfs file is one page at most; /proc/stat of a large machine is some hundred lines.
LONGEST_BYTES = 1 << 17


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A figure that cannot be read, and why. Never 0."""

    why: str

    def __str__(self) -> str:
        return f"unavailable: {self.why}"


Value = float | int | str | Unavailable


def number(value: Value) -> float | None:
    """The figure, or None where it is missing or no number."""
    return None if isinstance(value, (Unavailable, str)) else float(value)


class Tree:
    """The files below a root folder: "/", or a tree that a test writes."""

    def __init__(self, root: str | Path = "/") -> None:
        self.root = Path(root)

    def text(self, path: str) -> str | Unavailable:
        """The text of a file, stripped."""
        try:
            with open(self.root / path, "rb") as file:
                return file.read(LONGEST_BYTES).decode("utf-8", "replace").strip()
        except OSError as error:
            return Unavailable(f"/{path}: {_why(error)}")

    def number(self, path: str) -> float | Unavailable:
        """The number that a file holds."""
        text = self.text(path)
        if isinstance(text, Unavailable):
            return text
        try:
            return float(text)
        except ValueError:
            return Unavailable(f"/{path} holds '{text[:20]}', no number")

    def find(self, *patterns: str) -> list[str]:
        """The paths that fit, relative to the root, in natural order (cpu2 before cpu10)."""
        found = {path for pattern in patterns for path in glob.glob(pattern, root_dir=self.root)}
        return sorted(found, key=_natural)


def _natural(path: str) -> list[tuple[int, str]]:
    parts, digits = [], ""
    for char in path + "\0":
        if char.isdigit():
            digits += char
            continue
        if digits:
            parts.append((int(digits), ""))
            digits = ""
        parts.append((-1, char))
    return parts


def _why(error: OSError) -> str:
    if error.errno == errno.EACCES:
        return "not readable for this user"
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return "not there"
    return os.strerror(error.errno) if error.errno else str(error)
