"""Images, videos and bags in files: what the commands read of them before they are played."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edge_vision.bundles.store import sha256_of
from edge_vision.core.compressed import checked_header
from edge_vision.core.frame import MAX_PIXELS
from edge_vision.errors import ImageError
from edge_vision.source.opening import open_source
from edge_vision.source.uri import bag_files, source_kind

# Containers round times to 1 ms or finer.
_ROUNDING_S = 0.0015


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


def mean_rate_hz(times_s: Sequence[float]) -> float:
    """The mean rate of at least two images."""
    return (len(times_s) - 1) / (times_s[-1] - times_s[0])


def is_even(times_s: Sequence[float]) -> bool:
    """Whether the intervals are equal, apart from the rounding of a container."""
    return len(times_s) < 3 or bool(np.ptp(np.diff(times_s)) < _ROUNDING_S)


def read_image_file(path: Path, max_pixels: float = MAX_PIXELS) -> np.ndarray:
    """The image in a file as (h, w, 3) uint8 BGR, with its Exif orientation applied, unlike camera images.

    Raises OSError, and ImageError with reason zero_size, too_large, unsupported_encoding or corrupt_image.
    """
    if path.stat().st_size == 0:
        raise ImageError("zero_size", "expected an image, got an empty file")
    checked_header(np.memmap(path, np.uint8, "r"), max_pixels)
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ImageError("corrupt_image", "expected an image that OpenCV can decode, got a damaged one")
    return image
