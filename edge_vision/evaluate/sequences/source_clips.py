"""The real clips that sequences are built from, and vtest.avi without its walkers."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from edge_vision.bundles.store import cache_dir
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.reference.clips import read_clip


def clip_path(name: str) -> Path:
    """The path of a fetched clip. Raises EvaluateError if it is missing."""
    path = cache_dir() / "video" / name
    if not path.is_file():
        raise EvaluateError(f"expected the clip {path}, got no such file; run: python3 scripts/setup.py test")
    return path


@lru_cache(maxsize=8)
def still(name: str, index: int) -> np.ndarray:
    """One frame of a cached clip, (h, w, 3) uint8 BGR. Shared: do not modify."""
    for number, image in enumerate(read_clip(clip_path(name))):
        if number == index:
            return image
    raise EvaluateError(f"expected frame {index} in {name}, got a shorter clip")


@lru_cache(maxsize=1)
def vtest_frames() -> tuple[np.ndarray, ...]:
    """All frames of vtest.avi, (576, 768, 3) uint8 BGR."""
    return tuple(read_clip(clip_path("vtest.avi")))


@lru_cache(maxsize=1)
def vtest_empty() -> np.ndarray:
    """vtest.avi without its walkers: the median of every tenth frame."""
    return np.asarray(np.median(np.stack(vtest_frames()[::10]), axis=0).astype(np.uint8))
