"""Video files, V4L2 devices and network streams through OpenCV."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

import cv2
import numpy as np

from edge_vision.core.redaction import redact_url
from edge_vision.errors import EdgeVisionError
from edge_vision.source.frame_times import FrameTimes

DEFAULT_FPS_HZ = 30.0
# A file is not truncated if only its last images cannot be decoded, or its container counts them differently.
TOLERATED_FRAMES, TOLERATED_SHARE = 2, 0.01
PIPE_POLL_S = 0.1
_FFMPEG_QUIET = "-8"


class SourceError(EdgeVisionError):
    """A video source that cannot be opened."""


@dataclass(frozen=True, slots=True)
class SourceKind:
    """Parsed URI of a source. target: argument for OpenCV."""

    name: str
    target: str | int

    @property
    def is_file(self) -> bool:
        """True for a file, whose end is not an error."""
        return self.name == "file"


def source_kind(uri: str) -> SourceKind:
    """The kind of a source: file, device or stream. A number is a V4L2 device. Raises SourceError."""
    if uri.isascii() and uri.isdigit():
        return SourceKind("device", int(uri))
    if uri.startswith("/dev/"):
        return SourceKind("device", uri)
    if "://" in uri and not _FILE_URI.match(uri):
        return SourceKind("stream", uri)
    return SourceKind("file", str(video_path(uri)))


_FILE_URI = re.compile(r"file://", re.IGNORECASE)


def video_path(text: str) -> Path:
    """The absolute path of a video file, given as a path, or percent-encoded as file:///path.

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


class Capture:
    """An open source. Used by one thread."""

    def __init__(
        self, uri: str, open_timeout_ms: int = 5000, cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        """cancelled: ends the wait for the writer of a pipe. Raises SourceError."""
        self.kind = source_kind(uri)
        self._shown = redact_url(uri)
        self._check_exists()
        self._pipe = self._open_pipe(cancelled)
        self._capture = _open(self.kind, open_timeout_ms, self._pipe)
        if not self._capture.isOpened():
            self.close()
            raise SourceError(_CANNOT_OPEN[self.kind.name].format(self._shown))
        self.fps_hz = _valid_fps(self._capture.get(cv2.CAP_PROP_FPS))
        counted = self.kind.is_file and self._pipe is None
        # Negative in a file without a duration, such as WebM of a browser.
        self.frames = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))) if counted else 0
        self._read, self._at_ms = 0, 0.0
        self._times = FrameTimes(self.fps_hz)

    def _check_exists(self) -> None:
        target = self.kind.target
        if isinstance(target, str) and self.kind.name != "stream" and not Path(target).exists():
            raise SourceError(f"source '{self._shown}' does not exist: check the path or connect the device")
        if self.kind.is_file and Path(str(target)).is_dir():
            raise SourceError(f"source '{self._shown}' is a folder: give a video file")

    def _open_pipe(self, cancelled: Callable[[], bool]) -> int | None:
        """The descriptor of a pipe (FIFO) once it is readable; None if the source is not a pipe.

        OpenCV would wait for the writer itself, and block other threads from opening a video meanwhile.
        """
        if not self.kind.is_file or not Path(str(self.kind.target)).is_fifo():
            return None
        pipe = os.open(str(self.kind.target), os.O_RDONLY | os.O_NONBLOCK)
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        while not cancelled():
            events = [event for _, event in poll.poll(PIPE_POLL_S * 1e3)]
            if any(event & select.POLLIN for event in events):
                os.set_blocking(pipe, True)
                return pipe
            if events:  # A writer closed the pipe without writing.
                time.sleep(PIPE_POLL_S)
        os.close(pipe)
        raise SourceError(f"source '{self._shown}' is a pipe to which nothing was written: start its writer")

    def grab(self) -> bool:
        """Advance to the next image. False at the end, or if the source is lost."""
        if not self._capture.grab():
            return False
        self._read, self._at_ms = self._read + 1, self._capture.get(cv2.CAP_PROP_POS_MSEC)
        self._times.advance(self._at_ms)
        return True

    def retrieve(self) -> np.ndarray | None:
        """The image that `grab` advanced to, a new (h, w, 3) uint8 BGR array, upright; None on failure."""
        ok, image = self._capture.retrieve()
        return image if ok else None

    def read(self) -> np.ndarray | None:
        """The next image, as `retrieve` returns it; None at the end, or if the source is lost."""
        return self.retrieve() if self.grab() else None

    @property
    def time_s(self) -> float:
        """The last image's own time since the first image; frames may be unevenly spaced."""
        return self._times.time_s

    @property
    def shortest_interval_s(self) -> float:
        """The shortest interval between two images so far, at most 1 / fps_hz."""
        return self._times.shortest_interval_s

    @property
    def truncation(self) -> str:
        """Description of a premature end of the file; "" if it is complete, as far as its format shows."""
        of_all = f" of {self.frames}" if self._lacks_frames() else ""
        if not of_all and not (self.kind.is_file and _has_cut_packet(Path(str(self.kind.target)))):
            return ""
        text = f"source '{self._shown}' ended after {self._read}{of_all} images"
        return f"{text}: the file is truncated or damaged, copy or encode it again"

    def _lacks_frames(self) -> bool:
        """Whether fewer images were read than the container counts.

        Without a count in the container OpenCV estimates it from a rate that may be wrong. The time of the
        last image must therefore be before the end as well.
        """
        enough = self.frames - max(TOLERATED_FRAMES, TOLERATED_SHARE * self.frames)
        return self._read < enough and self._at_ms / 1e3 * self.fps_hz + 1 < enough

    def close(self) -> None:
        """Release the file, device or connection."""
        self._capture.release()
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None


_CANNOT_OPEN = {
    "file": "expected a video that OpenCV can read, got '{}': check it with `ffprobe`, or re-encode it",
    "device": "device '{}' cannot be opened: is it a camera, is it free, is this user in group video?",
    "stream": "stream '{}' does not answer: check the address, the network and the camera",
}


def _open(kind: SourceKind, open_timeout_ms: int, pipe: int | None = None) -> cv2.VideoCapture:
    if kind.name == "device":
        return cv2.VideoCapture(kind.target, cv2.CAP_V4L2)
    capture = _open_video(kind, open_timeout_ms, pipe)
    # Phones store portrait videos as landscape, with a rotation. OpenCV's default depends on its build.
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    return capture


def _open_video(kind: SourceKind, open_timeout_ms: int, pipe: int | None) -> cv2.VideoCapture:
    # More decoding threads would take memory and cores from the model.
    options = [cv2.CAP_PROP_N_THREADS, 1]
    if kind.name == "stream":
        if redact_url(str(kind.target)) != kind.target:
            # FFmpeg writes whole addresses to standard error, such as those of an HLS playlist's segments.
            os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", _FFMPEG_QUIET)
        options += [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            open_timeout_ms,
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            open_timeout_ms,
        ]
    if pipe is not None:
        return cv2.VideoCapture(f"pipe:{pipe}", cv2.CAP_FFMPEG, options)
    capture = cv2.VideoCapture(kind.target, cv2.CAP_FFMPEG, options)
    # OpenCV builds without FFmpeg read files through other libraries, without these options.
    return capture if capture.isOpened() or kind.name == "stream" else cv2.VideoCapture(kind.target)


def _has_cut_packet(path: Path) -> bool:
    """Whether the last packet of an MPEG transport stream is incomplete. The format has no count of images.

    Its packets (ISO 13818-1) have 188 bytes and begin with 0x47; in M2TS a time stamp of 4 bytes precedes
    each.
    """
    with contextlib.suppress(OSError), path.open("rb") as file:
        start, size_bytes = file.read(1024), os.fstat(file.fileno()).st_size
        for packet_bytes, at in ((188, 0), (192, 4)):
            if start[at::packet_bytes][:4] == b"\x47" * 4:
                return size_bytes % packet_bytes > 0
    return False


def _valid_fps(fps_hz: float) -> float:
    return fps_hz if math.isfinite(fps_hz) and 0.1 <= fps_hz <= 1000.0 else DEFAULT_FPS_HZ


def frame_times_s(uri: str, count: int | None = None) -> list[float]:
    """Times of a video's images, in s since the first; all, or the first count. Raises SourceError."""
    with contextlib.closing(Capture(uri)) as capture:
        numbers = itertools.count() if count is None else range(count)
        return [capture.time_s for _ in itertools.takewhile(lambda _: capture.grab(), numbers)]
