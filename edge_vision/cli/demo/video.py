"""The images of a run: an annotated video and a contact sheet."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from edge_vision.core.detection_overlay import draw_detections
from edge_vision.core.detections import Detections
from edge_vision.errors import EdgeVisionError
from edge_vision.source.frame_times import is_even, mean_rate_hz
from edge_vision.source.image_source import ImageSource
from edge_vision.source.opening import frame_times_s, open_source

CELLS = 9
COLUMNS = 3
CELL_WIDTH_PX = 512
MAX_VIDEO_HZ = 60.0
_DIM = 0.45
_FONT = cv2.FONT_HERSHEY_SIMPLEX

# (frames done, all frames) -> whether to continue.
Progress = Callable[[int, int], bool]


class VideoError(EdgeVisionError):
    """A video that cannot be written."""


class VideoFile:
    """annotated.mp4, or another format that OpenCV can write here. The first image opens the file."""

    def __init__(self, path: Path, fps_hz: float) -> None:
        self.path = path
        self._fps_hz = fps_hz
        self._writer: cv2.VideoWriter | None = None

    def add(self, image: np.ndarray, times: int = 1) -> None:
        """Append an (h, w, 3) uint8 BGR image; all have the size of the first. Raises VideoError."""
        if self._writer is None:
            self._writer = self._open(image)
        for _ in range(times):
            self._writer.write(image)

    def _open(self, image: np.ndarray) -> cv2.VideoWriter:
        size = (image.shape[1], image.shape[0])
        for suffix, code in ((".mp4", "mp4v"), (".mp4", "avc1"), (".avi", "MJPG")):
            self.path = self.path.with_suffix(suffix)
            writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*code), self._fps_hz, size)
            if writer.isOpened():
                return writer
        raise VideoError(f"OpenCV can write neither mp4 nor avi to {self.path.parent}: run with --no-video")

    def close(self) -> None:
        """Finish the file."""
        if self._writer:
            self._writer.release()


def annotate_file(
    source: str,
    found: Mapping[int, Detections],
    labels: Sequence[str],
    out: Path,
    with_video: bool,
    progress: Progress,
) -> list[Path]:
    """Read the file again and draw the detections on it. Returns the paths of the files written.

    A skipped frame shows the last boxes, dimmed. Raises SourceError, VideoError.
    """
    last = max(found, default=-1)
    wanted = contact_frames(found)
    cells: list[np.ndarray] = []
    written: list[Path] = []
    with contextlib.closing(open_source(source)) as capture:
        fps_hz, repeats = even_playback(frame_times_s(source, last + 1) if with_video else [], capture.fps_hz)
        video = VideoFile(out / "annotated.mp4", fps_hz) if with_video else None
        try:
            for index, image in annotated(_images(capture, last + 1), found, labels):
                if video:
                    video.add(image, repeats[index])
                if index in wanted:
                    cells.append(_with_title(_cell(image), f"{capture.time_s:.1f} s, frame {index}"))
                if not progress(index + 1, last + 1):
                    break
        finally:
            if video:
                video.close()
    if video and last >= 0:
        written.append(video.path)
    return written + write_sheet(cells, out / "annotated.png")


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


def _images(capture: ImageSource, count: int) -> Iterator[np.ndarray]:
    for _ in range(count):
        image = capture.read()
        if image is None:
            return
        yield image


def annotated(
    images: Iterator[np.ndarray], found: Mapping[int, Detections], labels: Sequence[str]
) -> Iterator[tuple[int, np.ndarray]]:
    """Frame number and image, with its own boxes, or with the last ones dimmed and a mark."""
    last = Detections.empty()
    for index, image in enumerate(images):
        if index in found:
            last = found[index]
            yield index, draw_detections(image, last, labels)
        else:
            yield index, skipped(image, last, labels)


def skipped(image: np.ndarray, last: Detections, labels: Sequence[str]) -> np.ndarray:
    """The image of a skipped frame, with the last boxes dimmed."""
    drawn = draw_detections(image.copy(), last, labels)
    mixed = cv2.addWeighted(drawn, _DIM, image, 1 - _DIM, 0)
    return _with_title(mixed, "skipped")


def contact_frames(found: Mapping[int, Detections], count: int = CELLS) -> set[int]:
    """Frames for the contact sheet: of each of `count` equal parts, the one with the most detections."""
    numbers = sorted(found)
    parts = [part for part in np.array_split(numbers, count) if len(part)]
    return {int(max(part.tolist(), key=lambda number: len(found[number]))) for part in parts}


def _cell(image: np.ndarray) -> np.ndarray:
    height = round(image.shape[0] * CELL_WIDTH_PX / image.shape[1])
    return cv2.resize(image, (CELL_WIDTH_PX, height), interpolation=cv2.INTER_AREA)


def _with_title(image: np.ndarray, text: str) -> np.ndarray:
    (width, height), _ = cv2.getTextSize(text, _FONT, 0.6, 1)
    cv2.rectangle(image, (0, 0), (width + 12, height + 12), (0, 0, 0), -1)
    cv2.putText(image, text, (6, height + 5), _FONT, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
    return image


def write_sheet(cells: Sequence[np.ndarray], path: Path) -> list[Path]:
    """Write a grid of images of one width. Returns its path, or nothing without images."""
    if not cells:
        return []
    height = max(cell.shape[0] for cell in cells)
    rows = []
    for start in range(0, len(cells), COLUMNS):
        row = [_padded(cell, height) for cell in cells[start : start + COLUMNS]]
        row += [np.zeros_like(row[0])] * (min(COLUMNS, len(cells)) - len(row))
        rows.append(np.hstack(row))
    if not cv2.imwrite(str(path), np.vstack(rows)):
        raise VideoError(f"cannot write {path}: check the free space and the permissions of the folder")
    return [path]


def _padded(cell: np.ndarray, height: int) -> np.ndarray:
    return cv2.copyMakeBorder(cell, 0, height - cell.shape[0], 0, 0, cv2.BORDER_CONSTANT)


class LiveRecorder:
    """Annotated video and contact sheet of a camera, from its debug images as they arrive."""

    def __init__(self, out: Path, with_video: bool) -> None:
        self._out = out
        self._with_video = with_video
        self._start: list[tuple[int, np.ndarray]] = []
        self._video: VideoFile | None = None
        self._cells: list[np.ndarray] = []
        self._first_ns = 0
        self._count = 0
        self._stride = 1

    def add(self, stamp_ns: int, image: np.ndarray) -> None:
        """Add one debug image."""
        self._first_ns = self._first_ns or stamp_ns
        if self._count % self._stride == 0:
            seconds = (stamp_ns - self._first_ns) / 1e9
            self._cells.append(_with_title(_cell(image), f"{seconds:.1f} s"))
            self._thin_out()
        self._count += 1
        if self._with_video:
            self._add_to_video(stamp_ns, image)

    def _thin_out(self) -> None:
        """Keep the cells few and evenly spaced, however long the run."""
        if len(self._cells) > 2 * CELLS:
            self._cells, self._stride = self._cells[::2], self._stride * 2

    def _add_to_video(self, stamp_ns: int, image: np.ndarray) -> None:
        if self._video:
            self._video.add(image)
            return
        self._start.append((stamp_ns, image.copy()))
        if len(self._start) >= 10:
            self._open_video()

    def _open_video(self) -> None:
        """Open the file with a frame rate from the first images."""
        span_s = (self._start[-1][0] - self._start[0][0]) / 1e9
        fps_hz = (len(self._start) - 1) / span_s if span_s > 0 else 10.0
        self._video = VideoFile(self._out / "annotated.mp4", max(1.0, min(60.0, fps_hz)))
        for _, image in self._start:
            self._video.add(image)
        self._start = []

    def close(self) -> list[Path]:
        """Finish. Returns the paths of the files written."""
        if self._start:
            self._open_video()
        if self._video:
            self._video.close()
        step = max(1, len(self._cells) // CELLS)
        written = [self._video.path] if self._video else []
        return written + write_sheet(self._cells[::step][:CELLS], self._out / "annotated.png")
