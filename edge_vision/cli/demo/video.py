"""The annotated video of a run: boxes on every frame, and below them when the detector ran and why."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from edge_vision.core.detection_overlay import draw_detections
from edge_vision.core.detections import Detections
from edge_vision.errors import EdgeVisionError, ImageError
from edge_vision.evaluate.live.live_record import LiveRecord
from edge_vision.offline.media_files import is_even, mean_rate_hz
from edge_vision.source.image_source import ImageSource
from edge_vision.source.opening import open_source

MAX_VIDEO_HZ = 60.0
MIN_WIDTH_PX = 640
STRIP_PX, BAR_PX = 84, 4
_BARS_TOP, _BARS_BOTTOM = 30, 56
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE, _SKIPPED, _BACKGROUND = (240, 240, 240), (110, 110, 110), (25, 25, 25)
# BGR, of the reasons for which the gate passes a frame; the others are white.
_COLORS = {
    "interval": (235, 160, 60),
    "urgent": (40, 150, 255),
    "cut": (70, 70, 240),
    "refresh": (120, 210, 90),
    "audit": (210, 110, 210),
}

# (frames done, all frames) -> whether to continue.
Progress = Callable[[int, int], bool]


class VideoError(EdgeVisionError):
    """A video that cannot be written."""


class VideoFile:
    """A video in the first format that OpenCV can write here. The first image opens the file."""

    def __init__(self, path: Path, fps_hz: float, *formats: tuple[str, str]) -> None:
        """formats: (suffix, FourCC), instead of MP4."""
        self.path, self._fps_hz = path, fps_hz
        self._formats = formats or ((".mp4", "mp4v"), (".mp4", "avc1"), (".avi", "MJPG"))
        self._writer: cv2.VideoWriter | None = None

    def add(self, image: np.ndarray, times: int = 1) -> None:
        """Append an (h, w, 3) uint8 BGR image; all have the size of the first. Raises VideoError."""
        if self._writer is None:
            self._writer = self._open(image)
        for _ in range(times):
            self._writer.write(image)

    def _open(self, image: np.ndarray) -> cv2.VideoWriter:
        size = (image.shape[1], image.shape[0])
        for suffix, code in self._formats:
            self.path = self.path.with_suffix(suffix)
            writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*code), self._fps_hz, size)
            if writer.isOpened():
                return writer
        raise VideoError(f"OpenCV cannot write a video to {self.path.parent}: run with --no-video")

    def close(self) -> Path:
        """Finish the file. Returns its path. Raises VideoError if it cannot be read, as on a full disk."""
        if self._writer:
            self._writer.release()
            if not cv2.VideoCapture(str(self.path)).grab():
                raise VideoError(
                    f"{self.path}: expected to write a video, got a damaged one: check the free space"
                )
        return self.path


def even_playback(times_s: Sequence[float], fps_hz: float) -> tuple[float, list[int]]:
    """A constant rate, and how often to write each frame at it for a display at times_s, within 1 / rate.

    OpenCV writes only evenly spaced frames. fps_hz: the rate if there are less than two frames.
    """
    if len(times_s) < 2:
        return fps_hz, [1] * len(times_s)
    if is_even(times_s):
        rate_hz = mean_rate_hz(times_s)
        # MPEG-4 stores a fractional rate only up to 65 Hz.
        return rate_hz if rate_hz <= MAX_VIDEO_HZ else round(rate_hz), [1] * len(times_s)
    rate_hz = min(MAX_VIDEO_HZ, 1.0 / float(np.diff(times_s).min()))
    slots = np.rint(np.multiply(times_s, rate_hz)).astype(int)
    return rate_hz, [*np.diff(slots).tolist(), 1]


def annotate(
    source: str, record: LiveRecord, times_s: Sequence[float], out: Path, progress: Progress
) -> list[Path]:
    """Draw a run into the frames of its source. Returns the paths of the video and of a picture of it.

    The picture is the frame without inference that has the most boxes. Raises SourceError, VideoError.
    """
    pictures = RunPictures(record, len(times_s))
    still: tuple[int, np.ndarray] | None = None
    with contextlib.closing(open_source(source, skip_unreadable=False)) as capture:
        fps_hz, repeats = even_playback(times_s, capture.fps_hz)
        video = VideoFile(out / "annotated.mp4", fps_hz)
        for index, image in _images(capture, len(times_s)):
            picture = pictures.drawn(index, image, times_s[index])
            video.add(picture, repeats[index])
            boxes = pictures.boxes_without_inference(index)
            if still is None or boxes > still[0]:
                still = boxes, picture
            if not progress(index + 1, len(times_s)):
                break
    if still is None:
        return []
    path = out / "annotated.png"
    if not cv2.imwrite(str(path), still[1]):
        raise VideoError(f"cannot write {path}: check the free space and the permissions of the folder")
    return [video.close(), path]


def _images(capture: ImageSource, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """The images of a source with their numbers; one that cannot be read repeats the one before."""
    image: np.ndarray | None = None
    for index in range(count):
        if not capture.grab():
            return
        with contextlib.suppress(ImageError):
            image = capture.retrieve()
        if image is not None:
            yield index, image


class RunPictures:
    """Draws the frames of a run, each with a strip below that shows the last decisions of the gate."""

    def __init__(self, record: LiveRecord, n: int) -> None:
        self._labels = record.labels
        published, _ = record.published(n)
        self._inferred, self._boxes = published.inferred.tolist(), published.detections
        self._reasons, self._passed = [""] * n, [False] * n
        for stamp_ns, (passed, reason) in record.gate_decisions.items():
            if (index := record.index_of.get(stamp_ns, n)) < n:
                self._reasons[index], self._passed[index] = reason, passed
        used = {reason for reason, ran in zip(self._reasons, self._inferred, strict=True) if ran and reason}
        self._legend = sorted(used, key=[*_COLORS, *sorted(used - _COLORS.keys())].index)

    def boxes_without_inference(self, index: int) -> int:
        """The number of predicted boxes of a frame; -1 if it was inferred."""
        return -1 if self._inferred[index] else len(self._boxes[index])

    def drawn(self, index: int, image: np.ndarray, time_s: float) -> np.ndarray:
        """A new image: the frame, enlarged if it is small, with its boxes and the strip."""
        scale = -(-MIN_WIDTH_PX // image.shape[1])
        size = (image.shape[1] * scale, image.shape[0] * scale)
        picture = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) if scale > 1 else image.copy()
        found = self._boxes[index]
        enlarged = Detections(found.xyxy_px * np.float32(scale), found.scores, found.class_ids)
        draw_detections(picture, enlarged, self._labels, predicted=not self._inferred[index])
        # Video formats require an even height.
        rows = STRIP_PX + size[1] % 2
        strip = np.full((rows, size[0], 3), _BACKGROUND, np.uint8)
        self._draw_strip(strip, index, time_s)
        return np.vstack((picture, strip))

    def _draw_strip(self, strip: np.ndarray, index: int, time_s: float) -> None:
        width, ran = strip.shape[1], sum(self._inferred[: index + 1])
        lost = "not inferred in time" if self._passed[index] else "skipped"
        what = "inferred" if self._inferred[index] else lost
        _write(strip, f"{time_s:5.1f} s  {what}: {self._reasons[index] or 'unknown'}", 8, 19)
        count = f"detector ran on {ran} of {index + 1} frames"
        _write(strip, count, width - 8 - cv2.getTextSize(count, _FONT, 0.45, 1)[0][0], 19)
        first = max(0, index + 1 - (width - 16) // BAR_PX)
        for column, at in enumerate(range(first, index + 1)):
            self._draw_bar(strip, 8 + column * BAR_PX, at)
        x = _write(strip, "boxes: solid inferred, dashed predicted   bars:", 8, 74)
        for reason in self._legend:
            x = _write(strip, reason, x + 10, 74, _COLORS.get(reason, _WHITE))

    def _draw_bar(self, strip: np.ndarray, x: int, at: int) -> None:
        ran = self._inferred[at]
        top = _BARS_TOP if ran else _BARS_BOTTOM - 5
        color = _COLORS.get(self._reasons[at], _WHITE) if ran else _SKIPPED
        cv2.rectangle(strip, (x, top), (x + BAR_PX - 2, _BARS_BOTTOM), color, -1)


def _write(image: np.ndarray, text: str, x: int, y: int, color: tuple[int, int, int] = _WHITE) -> int:
    """Write a text. Returns the x at its end."""
    cv2.putText(image, text, (x, y), _FONT, 0.45, color, 1, cv2.LINE_AA)
    return x + int(cv2.getTextSize(text, _FONT, 0.45, 1)[0][0])
