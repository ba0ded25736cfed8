"""Video files, V4L2 devices and network streams through OpenCV."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2

from edge_vision.core.compressed import check_still_image
from edge_vision.core.frame import MAX_PIXELS, Frame, check_size
from edge_vision.core.redaction import redact_url
from edge_vision.errors import ImageError
from edge_vision.source.frame_times import FrameTimes, valid_fps
from edge_vision.source.image_source import ImageSource
from edge_vision.source.uri import SourceError, SourceKind, source_kind

# A file is not truncated if only its last images cannot be decoded, or its container counts them differently.
TOLERATED_FRAMES, TOLERATED_SHARE = 2, 0.01
PIPE_POLL_S = 0.1
_FFMPEG_QUIET = "-8"


class Capture(ImageSource):
    """A source that OpenCV reads."""

    def __init__(
        self, uri: str, open_timeout_ms: int = 5000, cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        """cancelled: ends the wait for the writer of a pipe. Raises SourceError."""
        self.kind = source_kind(uri)
        self._shown = redact_url(uri)
        self._check_exists()
        self._pipe = self._open_pipe(cancelled)
        if self.kind.is_file and self._pipe is None:
            self._check_still_image()
        self._capture = _open(self.kind, open_timeout_ms, self._pipe)
        try:
            if not self._capture.isOpened():
                raise SourceError(_CANNOT_OPEN[self.kind.name].format(self._shown))
            self._check_size()
        except SourceError:
            self.close()
            raise
        self.fps_hz = valid_fps(self._capture.get(cv2.CAP_PROP_FPS))
        counted = self.kind.is_file and self._pipe is None
        # Negative in a file without a duration, such as WebM of a browser.
        self.frames = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))) if counted else 0
        self._read, self._at_ms = 0, 0.0
        self.times = FrameTimes(self.fps_hz)

    def _check_exists(self) -> None:
        target = self.kind.target
        if isinstance(target, str) and self.kind.name != "stream" and not Path(target).exists():
            raise SourceError(f"source '{self._shown}' does not exist: check the path or connect the device")
        if self.kind.is_file and Path(str(target)).is_dir():
            raise SourceError(f"source '{self._shown}' is a folder: give a video file or a bag")

    def _check_still_image(self) -> None:
        """FFmpeg decodes a still image when it opens it, whatever its size."""
        with self._image_errors(), contextlib.suppress(OSError):  # OpenCV reports what cannot be read.
            check_still_image(Path(str(self.kind.target)))

    def _check_size(self) -> None:
        """Check the declared size, before the first image is decoded. OpenCV has no limit for later ones."""
        width_px, height_px = (
            int(self._capture.get(one)) for one in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        with self._image_errors():
            check_size(max(1, width_px), max(1, height_px))

    @contextlib.contextmanager
    def _image_errors(self) -> Iterator[None]:
        try:
            yield
        except ImageError as error:
            what = str(error).partition(": ")[0]
            raise SourceError(
                f"source '{self._shown}' cannot be played: {what}: encode it again, as JPEG, PNG or a "
                f"video of at most {MAX_PIXELS / 1e6:g} megapixels"
            ) from None

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
        if not self._capture.grab():
            return False
        self._read, self._at_ms = self._read + 1, self._capture.get(cv2.CAP_PROP_POS_MSEC)
        self.times.advance(self._at_ms)
        return True

    def frame(self) -> Frame | None:
        ok, image = self._capture.retrieve()
        return Frame(image, 0, "") if ok else None

    @property
    def damage(self) -> str:
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
