"""Opens every kind of source, and reads what is known about a file before it is played."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

from edge_vision.bundles.store import sha256_of
from edge_vision.source.bag import BagCapture
from edge_vision.source.capture import Capture
from edge_vision.source.image_source import ImageSource
from edge_vision.source.uri import bag_files, source_kind


def open_source(
    uri: str,
    open_timeout_ms: int = 5000,
    cancelled: Callable[[], bool] = lambda: False,
    skip_unreadable: bool = True,
) -> ImageSource:
    """Open a video, bag, device or stream. Raises SourceError.

    cancelled: ends the wait for the writer of a pipe. skip_unreadable: see BagCapture.
    """
    if source_kind(uri).name == "bag":
        return BagCapture(uri, skip_unreadable)
    return Capture(uri, open_timeout_ms, cancelled)


def frame_times_s(uri: str, count: int | None = None) -> list[float]:
    """Times of a file's images, unreadable ones included, in s since the first; all, or the first count.

    Raises SourceError.
    """
    with contextlib.closing(open_source(uri, skip_unreadable=False)) as capture:
        numbers = itertools.count() if count is None else range(count)
        return [capture.time_s for _ in itertools.takewhile(lambda _: capture.grab(), numbers)]


def source_name(uri: str) -> str:
    """A short name of a file: its stem, for a bag with its topic."""
    kind = source_kind(uri)
    return "_".join([Path(str(kind.target)).stem, *filter(None, kind.topic.split("/"))])


def source_sha256(uri: str) -> str:
    """The SHA-256 of a video; of a bag, one of its files and topic. Raises OSError."""
    kind = source_kind(uri)
    path = Path(str(kind.target))
    if kind.name != "bag":
        return sha256_of(path)
    folders = [file.iterdir() if file.is_dir() else [file] for file in bag_files(path)]
    digests = [sha256_of(file) for file in sorted(itertools.chain(*folders)) if file.is_file()]
    return hashlib.sha256(" ".join([*digests, kind.topic]).encode()).hexdigest()
