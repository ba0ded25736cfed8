"""The pinned packages in requirements/*.lock: read, select, format for pip."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bootstrap.paths import SetupError

_FIRST_LINE = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")


@dataclass(frozen=True)
class Pin:
    """One package of a lock: normalised name, version, and the text with marker and hashes."""

    name: str
    version: str
    text: str


def read_lock(path: Path) -> tuple[Pin, ...]:
    """The pins of a lock file. Raises SetupError when a pin lacks its version or its sha256."""
    pins = []
    for block in _blocks(path.read_text()):
        match = _FIRST_LINE.match(block)
        if match is None or not _HASH.search(block):
            raise SetupError(
                f"{path}: expected NAME==VERSION and a sha256, got {block.splitlines()[0]!r}; run `make lock`"
            )
        pins.append(Pin(normalised(match[1]), match[2], block))
    return tuple(pins)


def _blocks(text: str) -> Iterable[str]:
    """Logical lines: a backslash at the end continues a line."""
    block: list[str] = []
    for line in text.splitlines():
        if not block and (not line.strip() or line.lstrip().startswith("#")):
            continue
        block.append(line)
        if not line.endswith("\\"):
            yield "\n".join(block)
            block = []
    if block:
        yield "\n".join(block)


def normalised(name: str) -> str:
    """A package name in the form that registries compare."""
    return re.sub(r"[-_.]+", "-", name).lower()


def choose(pins: Iterable[Pin], wanted: Callable[[Pin], bool]) -> tuple[Pin, ...]:
    return tuple(pin for pin in pins if wanted(pin))


def as_text(pins: Iterable[Pin]) -> str:
    """A requirements file for pip with these pins."""
    return "".join(pin.text + "\n" for pin in pins)
