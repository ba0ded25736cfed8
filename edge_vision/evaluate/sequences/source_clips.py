"""The real clips that scenes are made of, and their plain backgrounds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from edge_vision.bundles.store import cache_dir
from edge_vision.evaluate.errors import EvaluateError


def clip_path(name: str) -> Path:
    """Where the set-up leaves a clip. Raises EvaluateError where it is not."""
    path = cache_dir() / "video" / name
    if not path.is_file():
        raise EvaluateError(
            f"expected the clip {path}, got nothing there; run: python3 scripts/setup.py test"
        )
    return path


def read_clip(path: Path) -> Iterator[np.ndarray]:
    """The frames of a video, (h, w, 3) uint8 BGR. Raises EvaluateError where it cannot be opened."""
    # Absolute: FFmpeg takes what precedes a colon in a file name for a protocol.
    capture = cv2.VideoCapture(str(path.absolute()))
    try:
        if not capture.isOpened():
            raise EvaluateError(f"expected a video that OpenCV can open, got {path}")
        while True:
            good, image = capture.read()
            if not good:
                return
            yield image
    finally:
        capture.release()


@lru_cache(maxsize=8)
def still(name: str, index: int) -> np.ndarray:
    """One frame of a clip of the cache, (h, w, 3) uint8 BGR. Not to be written to."""
    for number, image in enumerate(read_clip(clip_path(name))):
        if number == index:
            return image
    raise EvaluateError(f"expected frame {index} in {name}, got a shorter clip")


@lru_cache(maxsize=1)
def vtest_frames() -> tuple[np.ndarray, ...]:
    """All frames of vtest.avi, (576, 768, 3) uint8 BGR: a fixed camera over a court."""
    return tuple(read_clip(clip_path("vtest.avi")))


@lru_cache(maxsize=1)
def vtest_empty() -> np.ndarray:
    """vtest.avi without its walkers: the median of every tenth frame."""
    return np.asarray(np.median(np.stack(vtest_frames()[::10]), axis=0).astype(np.uint8))
