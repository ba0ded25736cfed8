"""The real clips that scenes are made of, and their plain backgrounds."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from edge_vision.bundles.store import cache_dir
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.reference.clips import read_clip


def clip_path(name: str) -> Path:
    """Where the set-up leaves a clip. Raises EvaluateError where it is not."""
    path = cache_dir() / "video" / name
    if not path.is_file():
        raise EvaluateError(
            f"expected the clip {path}, got nothing there; run: python3 scripts/setup.py test"
        )
    return path


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
