"""What the address of a source means: a file, a bag, a device or a stream."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from edge_vision.core.redaction import redact_url
from edge_vision.errors import EdgeVisionError

BAG_SUFFIXES = (".mcap", ".db3", ".bag")


class SourceError(EdgeVisionError):
    """A video source that cannot be opened."""


class SourcePackageError(SourceError):
    """A package that reads this kind of source is not installed: opening it again cannot succeed."""


@dataclass(frozen=True, slots=True)
class SourceKind:
    """Parsed URI of a source. target: argument for OpenCV, or path of a bag. topic: "" = the only one."""

    name: str
    target: str | int
    topic: str = ""

    @property
    def is_file(self) -> bool:
        """True for a video or a bag, whose end is not an error."""
        return self.name in ("file", "bag")


def source_kind(uri: str) -> SourceKind:
    """The kind of a source: file, bag (PATH or PATH#TOPIC), device or stream. A number is a V4L2 device.

    Raises SourceError.
    """
    if uri.isascii() and uri.isdigit():
        return SourceKind("device", int(uri))
    if uri.startswith("/dev/"):
        return SourceKind("device", uri)
    if "://" in uri and not _FILE_URI.match(uri):
        return SourceKind("stream", uri)
    path = video_path(uri)
    bag, mark, topic = str(path).rpartition("#")
    if mark and not os.path.exists(path) and bag_files(Path(bag)):
        return SourceKind("bag", bag, topic)
    return SourceKind("bag" if bag_files(path) else "file", str(path))


def bag_files(path: Path) -> list[Path]:
    """The files to open of a bag, which need not exist; none if the path is not one of a bag, or unreadable.

    A folder with metadata.yaml is one recording. Without it, as after a crash, each of its files is opened.
    """
    if not os.path.isdir(path):  # Unlike the methods of Path, False for a name that is too long.
        return [path] if path.suffix in BAG_SUFFIXES else []
    if os.path.isfile(path / "metadata.yaml"):
        return [path]
    return sorted(file for file in path.glob("*") if file.suffix in BAG_SUFFIXES)


_FILE_URI = re.compile(r"file://", re.IGNORECASE)


def video_path(text: str) -> Path:
    """The absolute path of a video or bag, given as a path, or percent-encoded as file:///path.

    FFmpeg would take the text before the colon of a relative path `14:05:09.mp4` for a protocol. Raises
    SourceError.
    """
    if "://" in text and not _FILE_URI.match(text) and not os.path.exists(text):
        raise SourceError(f"expected a video file, got the address '{redact_url(text)}': record it first")
    if not _FILE_URI.match(text):
        return Path(os.path.expanduser(text)).absolute()
    host, slash, path = text[len("file://") :].partition("/")
    if host.lower() not in ("", "localhost") or not slash:
        raise SourceError(
            f"expected file:///path/to/video.mp4 on this machine, got '{redact_url(text)}': "
            "give three slashes and an absolute path, or a plain path without file://"
        )
    return Path(os.fsdecode(unquote_to_bytes(f"/{path}")))
