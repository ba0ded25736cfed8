"""Pictures out of clips. Calibration and judgement never see the same clip."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_vision.core.compressed import read_image_file
from edge_vision.errors import ImageError
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.settings import MIN_PICTURES
from edge_vision.source.capture import video_path

_PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
_FLAT = 2.0
"""Grey levels of deviation below which a picture shows nothing, as the black start of many clips."""


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Pictures of a video or a folder, evenly over it, (h, w, 3) uint8 BGR. sha256: of the file or files."""

    path: Path
    sha256: str
    pictures: tuple[np.ndarray, ...]
    names: tuple[str, ...] = ()
    """Of the files of a folder."""

    @property
    def marks(self) -> frozenset[str]:
        """One for each picture that shows something: the same picture has the same."""
        return frozenset(_mark(one) for one in self.pictures if float(one.std()) > _FLAT)


def clips_of(calibration: str | None, given: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The clip to calibrate on ("" = none) and those to judge on, absolute, out of what was given.

    A folder of videos stands for them; of several, the first calibrates where no other does.
    """
    clips = [str(clip) for path in given for clip in _clips_in(video_path(path))]
    if calibration:
        return str(video_path(calibration)), tuple(clips)
    return (clips[0], tuple(clips[1:])) if len(clips) > 1 else ("", tuple(clips))


def _clips_in(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    videos = sorted(file for file in path.iterdir() if file.suffix.lower() in _VIDEOS)
    return videos or [path]


def read_clip(path: Path, count: int) -> Clip:
    """At most count pictures. Raises OptimizeError where there is no clip, or too little in it."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _PICTURES)
        taken: list[Path] = _evenly(files, count)
        clip = Clip(path, _sha256(files), tuple(map(_picture, taken)), tuple(file.name for file in taken))
    elif path.is_file():
        clip = Clip(path, _sha256([path]), tuple(_video(path, count)))
    else:
        raise OptimizeError(f"{path}: expected a video or a folder of pictures, got nothing there")
    _check(clip)
    return clip


def _check(clip: Clip) -> None:
    if not clip.pictures:
        raise OptimizeError(
            f"{clip.path}: expected a video that OpenCV reads or a folder with {', '.join(_PICTURES)}, got "
            f"no picture at all"
        )
    different = len(clip.marks)
    if different < MIN_PICTURES:
        raise OptimizeError(
            f"{clip.path}: expected at least {MIN_PICTURES} different pictures, got {different} in "
            f"{len(clip.pictures)}; take a longer clip in which something happens"
        )


def check_apart(calibration: Clip, judged: Sequence[Clip]) -> None:
    """Raise OptimizeError where a clip to judge on is the one to calibrate on, as a whole or in part."""
    for clip in judged:
        same = calibration.sha256 == clip.sha256 or calibration.marks & clip.marks
        if same:
            raise OptimizeError(
                f"{calibration.path} and {clip.path} show the same pictures: a model that was calibrated on "
                f"them would be judged on what it has seen; give another clip with --calibration"
            )


def tiles(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Each picture in four: a classifier looks at parts of a frame, and sees more different things so."""
    parts = []
    for picture in pictures:
        for rows in np.array_split(picture, 2, axis=0):
            parts += np.array_split(rows, 2, axis=1)
    return parts


def store(pictures: Sequence[np.ndarray], folder: Path) -> str:
    """Write them as PNG files, numbered; the folder must not exist. Returns their sha256 together."""
    folder.mkdir(parents=True)
    digest = hashlib.sha256()
    for number, picture in enumerate(pictures):
        data = cv2.imencode(".png", picture)[1].tobytes()
        (folder / f"{number:03d}.png").write_bytes(data)
        digest.update(np.ascontiguousarray(picture).tobytes())
    return digest.hexdigest()


def stored(folder: Path) -> list[np.ndarray]:
    """What `store` wrote. Raises OptimizeError where it is gone."""
    files = sorted(folder.glob("*.png"))
    if not files:
        raise OptimizeError(f"{folder}: expected the pictures of this study, got none; run it anew")
    return [_picture(file) for file in files]


def _picture(file: Path) -> np.ndarray:
    try:
        return read_image_file(file)
    except ImageError as error:
        raise OptimizeError(f"{file}: {error}") from None


def _video(path: Path, count: int) -> list[np.ndarray]:
    """Read from the start to the end: seeking lands on other frames, by codec and build."""
    total = _length(path)
    wanted = set(_evenly(range(total), count))
    capture, pictures = cv2.VideoCapture(str(path.absolute())), []
    try:
        for number in range(total):
            if not capture.grab():
                break
            if number in wanted:
                decoded, picture = capture.retrieve()
                if decoded:
                    pictures.append(np.asarray(picture))
    finally:
        capture.release()
    return pictures


def _length(path: Path) -> int:
    """Frames of a video; counted where its header does not tell."""
    capture = cv2.VideoCapture(str(path.absolute()))
    try:
        told = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if told > 0:
            return told
        counted = 0
        while capture.grab():
            counted += 1
        return counted
    finally:
        capture.release()


def _evenly(items: Sequence[Path] | range, count: int) -> list:  # type: ignore[type-arg]
    if len(items) <= count:
        return list(items)
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, count)]


def _mark(picture: np.ndarray) -> str:
    return hashlib.sha256(
        np.ascontiguousarray(picture).tobytes() + bytes(str(picture.shape), "ascii")
    ).hexdigest()


def _sha256(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
