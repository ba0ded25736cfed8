"""Keyboard input of a terminal, key by key. The terminal's settings are restored in any case."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator

try:
    import termios
    import tty
except ImportError:  # Windows: no keys are read.
    termios = tty = None  # type: ignore[assignment]

_ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left", "Z": "left"}
_NAMES = {"\t": "right", "j": "down", "k": "up", "\x1b": "escape"}


class Keyboard:
    """A context manager. Without a terminal on stdin there are no keys."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self._saved: list[object] | None = None

    def __enter__(self) -> Keyboard:
        if termios and sys.stdin.isatty():
            self._fd = sys.stdin.fileno()
            self._saved = termios.tcgetattr(self._fd)
            # Ctrl-C and Ctrl-Z remain signals.
            tty.setcbreak(self._fd)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._fd is not None and self._saved is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]
        self._fd = None

    def pressed(self) -> list[str]:
        """The keys pressed since the last call: letters, "up", "down", "left", "right". Does not block."""
        if self._fd is None or not select.select([self._fd], [], [], 0)[0]:
            return []
        data = os.read(self._fd, 64)
        if not data:  # The terminal was closed.
            return ["q"]
        return list(named_keys(data.decode("utf-8", "replace")))


def named_keys(text: str) -> Iterator[str]:
    """The keys in the input of a terminal; an arrow is three characters, ESC [ A or ESC O A."""
    at = 0
    while at < len(text):
        if text[at] == "\x1b" and text[at + 1 : at + 2] in ("[", "O"):
            end = at + 2
            while end < len(text) and not text[end].isalpha() and text[end] != "~":
                end += 1
            if name := _ARROWS.get(text[end : end + 1]):
                yield name
            at = end + 1
        else:
            yield _NAMES.get(text[at], text[at].lower())
            at += 1
