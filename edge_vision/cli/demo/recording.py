"""Records a camera or stream as a video file, so that both runs of the demo get the same images."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from edge_vision.cli.demo.video import VideoFile
from edge_vision.source.opening import open_source
from edge_vision.source.uri import SourceError

MIN_HZ, MAX_HZ = 1.0, 120.0


def record(source: str, seconds: float, path: Path, show: Callable[[float], bool]) -> Path:
    """Record for this long, at the mean rate of the images. Returns the path of the file.

    show: called with the seconds so far; returns whether to continue. Raises SourceError, VideoError.
    """
    images: list[np.ndarray] = []
    with contextlib.closing(open_source(source)) as capture:
        start_s, elapsed_s = time.monotonic(), 0.0
        while elapsed_s < seconds and show(elapsed_s) and (image := capture.read()) is not None:
            # Compressed: 30 s of uncompressed HD images would take 2.5 GB.
            images.append(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])
            elapsed_s = time.monotonic() - start_s
    if len(images) < 2:
        raise SourceError(f"expected images from the source for {seconds:g} s, got {len(images)}")
    video = VideoFile(path, min(MAX_HZ, max(MIN_HZ, len(images) / elapsed_s)), (".avi", "MJPG"))
    for data in images:
        video.add(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return video.close()
