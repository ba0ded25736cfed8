"""Opens every kind of source."""

from __future__ import annotations

from collections.abc import Callable

from edge_vision.source.bag import BagCapture
from edge_vision.source.capture import Capture
from edge_vision.source.image_source import ImageSource
from edge_vision.source.uri import source_kind


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
