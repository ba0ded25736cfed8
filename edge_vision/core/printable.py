"""Text from outside on a terminal or in a log: control characters are shown, not obeyed."""

from __future__ import annotations

import contextlib
import io
import sys
import unicodedata
from collections.abc import Iterator
from typing import TextIO

from edge_vision.core.redaction import redact_text

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    r"""One line: control, format and bidirectional characters as \u001b and the like, the rest unchanged.

    The escapes are those of JSON: a JSON document remains one with the same content.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def printable_lines(text: str) -> str:
    """The same for a text of several lines, which it keeps."""
    return "\n".join(map(printable, text.split("\n")))


def printable_error(error: object) -> str:
    """An error's message for standard error, masked; its further lines are indented, so that none of them
    passes for a message of its own."""
    return printable_lines(redact_text(str(error))).replace("\n", "\n  ")


def _shown(char: str) -> str:
    if char.isprintable() or unicodedata.category(char) == "Zs":
        return char
    return _SHORT.get(char) or "".join(f"\\u{unit:04x}" for unit in _utf16(char))


def _utf16(char: str) -> Iterator[int]:
    data = char.encode("utf-16-be", "surrogatepass")
    return (int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))


class PrintableStream(io.TextIOBase):
    """Writes to `raw` what can be printed safely, without secrets of addresses. Lines stay lines."""

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


def raw_stream(stream: TextIO) -> TextIO:
    """The stream that control characters of our own, such as colours, can be written to."""
    return stream.raw if isinstance(stream, PrintableStream) else stream


@contextlib.contextmanager
def printable_output(stdout: bool = True) -> Iterator[None]:
    """Have all that this process prints go through PrintableStream. For a whole command, as a decorator.

    stdout: False for a command that escapes its standard output itself.
    """
    before = sys.stdout, sys.stderr
    if stdout:
        sys.stdout = PrintableStream(sys.stdout)
    sys.stderr = PrintableStream(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
