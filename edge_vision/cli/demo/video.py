"""The pictures of a run: an annotated video, and a contact sheet that shows it at a glance."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from edge_vision.core.detection_overlay import draw_detections
from edge_vision.core.detections import Detections
from edge_vision.errors import EdgeVisionError
from edge_vision.source.capture import Capture

CELLS = 9
COLUMNS = 3
CELL_WIDTH_PX = 512
_DIM = 0.45
_FONT = cv2.FONT_HERSHEY_SIMPLEX

# Frames done and in all -> whether to go on.
Progress = Callable[[int, int], bool]


class VideoError(EdgeVisionError):
    """A video that cannot be written."""


class VideoFile:
    """annotated.mp4, or what else OpenCV can write here. The file opens with the first picture."""

    def __init__(self, path: Path, fps_hz: float) -> None:
        self.path = path
        self._fps_hz = fps_hz
        self._writer: cv2.VideoWriter | None = None

    def add(self, picture: np.ndarray) -> None:
        """Append a (h, w, 3) uint8 BGR picture; all have the size of the first. Raises VideoError."""
        if self._writer is None:
            self._writer = self._opened(picture)
        self._writer.write(picture)

    def _opened(self, picture: np.ndarray) -> cv2.VideoWriter:
        size = (picture.shape[1], picture.shape[0])
        for suffix, code in ((".mp4", "mp4v"), (".mp4", "avc1"), (".avi", "MJPG")):
            self.path = self.path.with_suffix(suffix)
            writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*code), self._fps_hz, size)
            if writer.isOpened():
                return writer
        raise VideoError(f"this OpenCV writes neither mp4 nor avi to {self.path.parent}: run with --no-video")

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
    """Play the file again and draw what the pipeline found on it. Returns what was written.

    A frame that the detector did not see shows the last boxes, dimmed. Raises SourceError, VideoError.
    """
    last = max(found, default=-1)
    wanted = chosen_frames(found)
    cells: list[np.ndarray] = []
    written: list[Path] = []
    with contextlib.closing(Capture(source)) as capture:
        video = VideoFile(out / "annotated.mp4", capture.fps_hz) if with_video else None
        try:
            for index, picture in annotated(_pictures(capture, last + 1), found, labels):
                if video:
                    video.add(picture)
                if index in wanted:
                    cells.append(_titled(_fitted(picture), f"{index / capture.fps_hz:.1f} s, frame {index}"))
                if not progress(index + 1, last + 1):
                    break
        finally:
            if video:
                video.close()
    if video and last >= 0:
        written.append(video.path)
    return written + write_sheet(cells, out / "annotated.png")


def _pictures(capture: Capture, count: int) -> Iterator[np.ndarray]:
    for _ in range(count):
        picture = capture.read()
        if picture is None:
            return
        yield picture


def annotated(
    pictures: Iterator[np.ndarray], found: Mapping[int, Detections], labels: Sequence[str]
) -> Iterator[tuple[int, np.ndarray]]:
    """Number and picture, each with its own boxes, or with the last ones dimmed and a mark."""
    last = Detections.empty()
    for index, picture in enumerate(pictures):
        if index in found:
            last = found[index]
            yield index, draw_detections(picture, last, labels)
        else:
            yield index, skipped(picture, last, labels)


def skipped(picture: np.ndarray, last: Detections, labels: Sequence[str]) -> np.ndarray:
    """A picture that the detector did not see, with the last boxes faintly in it."""
    drawn = draw_detections(picture.copy(), last, labels)
    mixed = cv2.addWeighted(drawn, _DIM, picture, 1 - _DIM, 0)
    return _titled(mixed, "skipped")


def chosen_frames(found: Mapping[int, Detections], count: int = CELLS) -> set[int]:
    """Frames for the contact sheet: the run in equal parts, of each the frame with the most to see."""
    numbers = sorted(found)
    parts = [part for part in np.array_split(numbers, count) if len(part)]
    return {int(max(part.tolist(), key=lambda number: len(found[number]))) for part in parts}


def _fitted(picture: np.ndarray) -> np.ndarray:
    height = round(picture.shape[0] * CELL_WIDTH_PX / picture.shape[1])
    return cv2.resize(picture, (CELL_WIDTH_PX, height), interpolation=cv2.INTER_AREA)


def _titled(picture: np.ndarray, text: str) -> np.ndarray:
    (width, height), _ = cv2.getTextSize(text, _FONT, 0.6, 1)
    cv2.rectangle(picture, (0, 0), (width + 12, height + 12), (0, 0, 0), -1)
    cv2.putText(picture, text, (6, height + 5), _FONT, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
    return picture


def write_sheet(cells: Sequence[np.ndarray], path: Path) -> list[Path]:
    """A grid of pictures of one width. Returns the path, or nothing where there is no picture."""
    if not cells:
        return []
    height = max(cell.shape[0] for cell in cells)
    rows = []
    for start in range(0, len(cells), COLUMNS):
        row = [_padded(cell, height) for cell in cells[start : start + COLUMNS]]
        row += [np.zeros_like(row[0])] * (min(COLUMNS, len(cells)) - len(row))
        rows.append(np.hstack(row))
    if not cv2.imwrite(str(path), np.vstack(rows)):
        raise VideoError(f"cannot write {path}: is there room, may it be written?")
    return [path]


def _padded(cell: np.ndarray, height: int) -> np.ndarray:
    return cv2.copyMakeBorder(cell, 0, height - cell.shape[0], 0, 0, cv2.BORDER_CONSTANT)


class LiveRecorder:
    """The same from a camera, which cannot be played again: keeps the debug images as they come."""

    def __init__(self, out: Path, with_video: bool) -> None:
        self._out = out
        self._with_video = with_video
        self._start: list[tuple[int, np.ndarray]] = []
        self._video: VideoFile | None = None
        self._cells: list[np.ndarray] = []
        self._first_ns = 0
        self._count = 0
        self._stride = 1

    def add(self, stamp_ns: int, picture: np.ndarray) -> None:
        """Take one debug image."""
        self._first_ns = self._first_ns or stamp_ns
        if self._count % self._stride == 0:
            seconds = (stamp_ns - self._first_ns) / 1e9
            self._cells.append(_titled(_fitted(picture), f"{seconds:.1f} s"))
            self._thin_out()
        self._count += 1
        if self._with_video:
            self._film(stamp_ns, picture)

    def _thin_out(self) -> None:
        """However long it lasts, the sheet's frames stay few and evenly spread."""
        if len(self._cells) > 2 * CELLS:
            self._cells, self._stride = self._cells[::2], self._stride * 2

    def _film(self, stamp_ns: int, picture: np.ndarray) -> None:
        if self._video:
            self._video.add(picture)
            return
        self._start.append((stamp_ns, picture.copy()))
        if len(self._start) >= 10:
            self._open_video()

    def _open_video(self) -> None:
        """The frame rate is known after a few pictures only."""
        span_s = (self._start[-1][0] - self._start[0][0]) / 1e9
        fps_hz = (len(self._start) - 1) / span_s if span_s > 0 else 10.0
        self._video = VideoFile(self._out / "annotated.mp4", max(1.0, min(60.0, fps_hz)))
        for _, picture in self._start:
            self._video.add(picture)
        self._start = []

    def close(self) -> list[Path]:
        """Finish. Returns what was written."""
        if self._start:
            self._open_video()
        if self._video:
            self._video.close()
        step = max(1, len(self._cells) // CELLS)
        written = [self._video.path] if self._video else []
        return written + write_sheet(self._cells[::step][:CELLS], self._out / "annotated.png")
