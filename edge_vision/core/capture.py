"""Video files, V4L2 devices and network streams through OpenCV, with errors that say what is wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_vision.errors import EdgeVisionError

DEFAULT_FPS_HZ = 30.0
# A file whose last images cannot be decoded, or whose container counts them otherwise, is no cut-off one.
SPARED_FRAMES, SPARED_SHARE = 2, 0.01


class SourceError(EdgeVisionError):
    """A video source that cannot be opened."""


@dataclass(frozen=True, slots=True)
class SourceKind:
    """What a URI means. target: what OpenCV opens."""

    name: str
    target: str | int

    @property
    def ends(self) -> bool:
        """True for a file: its end is no loss."""
        return self.name == "file"


def source_kind(uri: str) -> SourceKind:
    """file, device or stream. A bare number is a V4L2 device, file:// a path."""
    if uri.isdigit():
        return SourceKind("device", int(uri))
    if uri.startswith("/dev/"):
        return SourceKind("device", uri)
    if uri.startswith("file://"):
        return SourceKind("file", uri[len("file://") :])
    if "://" in uri:
        return SourceKind("stream", uri)
    return SourceKind("file", str(Path(uri).expanduser()))


class Capture:
    """An open source. One thread uses it."""

    def __init__(self, uri: str, open_timeout_ms: int = 5000) -> None:
        """Raises SourceError with what to do."""
        self.kind = source_kind(uri)
        self._uri = uri
        self._check_there()
        self._capture = _open(self.kind, open_timeout_ms)
        if not self._capture.isOpened():
            raise SourceError(_CANNOT_OPEN[self.kind.name].format(uri))
        self.fps_hz = _sane_fps(self._capture.get(cv2.CAP_PROP_FPS))
        self.frames = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)) if self.kind.ends else 0
        self._read, self._at_ms = 0, 0.0

    def _check_there(self) -> None:
        target = self.kind.target
        if isinstance(target, str) and self.kind.name != "stream" and not Path(target).exists():
            raise SourceError(f"source '{self._uri}' does not exist: check the path or connect the device")
        if self.kind.ends and Path(str(target)).is_dir():
            raise SourceError(f"source '{self._uri}' is a folder: give a video file")

    def read(self) -> np.ndarray | None:
        """The next image, (h, w, 3) uint8 BGR, an array of its own; None at the end or when it is lost."""
        ok, image = self._capture.read()
        if not ok:
            return None
        self._read, self._at_ms = self._read + 1, self._capture.get(cv2.CAP_PROP_POS_MSEC)
        return image

    @property
    def cut_short(self) -> str:
        """That a file ended before its container says it does; "" where it did not.

        Without a count in the container there is an estimate, from a rate that may be wrong. So the time of
        the last image must fall short of the end as well.
        """
        spared = max(SPARED_FRAMES, SPARED_SHARE * self.frames)
        if self._read + spared >= self.frames or self._at_ms / 1e3 * self.fps_hz + 1 + spared >= self.frames:
            return ""
        text = f"source '{self._uri}' ended after {self._read} of {self.frames} images"
        return f"{text}: the file is truncated or damaged, copy or encode it again"

    def close(self) -> None:
        """Let go of the file, device or connection."""
        self._capture.release()


_CANNOT_OPEN = {
    "file": "source '{}' is no video that OpenCV can read: check it with `ffprobe`, or re-encode it",
    "device": "device '{}' cannot be opened: is it a camera, is it free, is this user in group video?",
    "stream": "stream '{}' does not answer: check the address, the network and the camera",
}


def _open(kind: SourceKind, open_timeout_ms: int) -> cv2.VideoCapture:
    if kind.name == "device":
        return cv2.VideoCapture(kind.target, cv2.CAP_V4L2)
    # One decoding thread: more cost memory and cores that the model needs.
    options = [cv2.CAP_PROP_N_THREADS, 1]
    if kind.name == "stream":
        options += [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            open_timeout_ms,
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            open_timeout_ms,
        ]
    capture = cv2.VideoCapture(kind.target, cv2.CAP_FFMPEG, options)
    # OpenCV builds without FFmpeg read files through other libraries, without these options.
    return capture if capture.isOpened() or kind.name == "stream" else cv2.VideoCapture(kind.target)


def _sane_fps(fps_hz: float) -> float:
    return fps_hz if math.isfinite(fps_hz) and 0.1 <= fps_hz <= 1000.0 else DEFAULT_FPS_HZ
