"""Progress line: rewritten in place on a terminal, printed every few seconds elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

from edge_vision.core.printable import PrintableStream, printable

PERIOD_S = {True: 0.25, False: 5.0}

Count = Callable[[int, int], None]
"""How much is done, of how much."""


def no_count(done: int, total: int) -> None:
    """A Count that shows nothing."""


class ProgressLine:
    """Writes progress to a stream at a limited rate."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """stream: default standard output."""
        self._stream = raw_stream(stream or sys.stdout)
        self._tty = self._stream.isatty()
        self._next_s = 0.0
        self._open = False

    def show(self, text: str) -> None:
        """Show the text, unless the last one was shown too recently."""
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + PERIOD_S[self._tty]
        text = printable(text)
        if self._tty:
            width = shutil.get_terminal_size((100, 24)).columns - 1
            self._stream.write("\r" + text[:width].ljust(width))
            self._open = True
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def progress(self, what: str, done: int, total: int) -> None:
        """Show a progress bar."""
        if done >= total:
            self._next_s = 0.0
        filled = 30 * done // max(1, total)
        self.show(f"{what} [{'#' * filled}{'.' * (30 - filled)}] {done}/{total}")

    def end(self, text: str = "") -> None:
        """Finish the line, with an optional last text."""
        if text:
            self._next_s = 0.0
            self.show(text)
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
        self._open, self._next_s = False, 0.0


def raw_stream(stream: TextIO) -> TextIO:
    """The underlying stream, for control characters of this package, such as colours."""
    return stream.raw if isinstance(stream, PrintableStream) else stream
