"""Escapes control characters of untrusted text for terminals and logs."""

from __future__ import annotations

import contextlib
import io
import sys
import unicodedata
from collections.abc import Iterator
from typing import TextIO

from edge_vision.core.redaction import redact_text

MAX_CHARS = 4000
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    r"""One line with control, format and bidirectional characters escaped as in JSON, such as \u001b.

    A JSON document stays valid, with the same content.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def bounded_text(text: str) -> str:
    """At most MAX_CHARS of a text for a log or status, without secrets and control characters."""
    return printable(redact_text(text[: 2 * MAX_CHARS]))[:MAX_CHARS]


def printable_lines(text: str) -> str:
    """As `printable`, but keeps line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def printable_error(error: object) -> str:
    """An error's message for standard error, without secrets. Further lines are indented, so that they cannot
    imitate another message."""
    return printable_lines(redact_text(str(error))).replace("\n", "\n  ")


def _shown(char: str) -> str:
    if char.isprintable() or unicodedata.category(char) == "Zs":
        return char
    return _SHORT.get(char) or "".join(f"\\u{unit:04x}" for unit in _utf16(char))


def _utf16(char: str) -> Iterator[int]:
    data = char.encode("utf-16-be", "surrogatepass")
    return (int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))


class PrintableStream(io.TextIOBase):
    """Writes to `raw` with control characters escaped and secrets of addresses masked. Keeps line breaks."""

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        self.raw.write(printable_lines(redact_text(text)))
        return len(text)

    def flush(self) -> None:
        self.raw.flush()

    def fileno(self) -> int:
        return self.raw.fileno()

    def isatty(self) -> bool:
        return self.raw.isatty()

    def writable(self) -> bool:
        return True


@contextlib.contextmanager
def printable_output(stdout: bool = True) -> Iterator[None]:
    """Send all output of this process through PrintableStream. Use as a decorator of a whole command.

    stdout: False if the command escapes its standard output itself.
    """
    before = sys.stdout, sys.stderr
    if stdout:
        sys.stdout = PrintableStream(sys.stdout)
    sys.stderr = PrintableStream(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
