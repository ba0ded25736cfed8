"""Images from clips. The calibration clip and the evaluation clips must differ."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from edge_vision.errors import ImageError
from edge_vision.offline.media_files import read_image_file, source_sha256
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.settings import MIN_IMAGES
from edge_vision.source.opening import open_source
from edge_vision.source.uri import SourceError, source_kind, video_path

_IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
_UNIFORM = 2.0
"""Standard deviation in grey levels below which an image is blank, as the black start of many clips."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Images sampled evenly from a video or a folder, (h, w, 3) uint8 BGR. sha256: of the file or files."""

    path: Path
    sha256: str
    images: tuple[np.ndarray, ...]
    names: tuple[str, ...] = ()
    """File names, for a folder."""

    @property
    def fingerprints(self) -> frozenset[str]:
        """A hash of each image that is not blank; equal images have equal hashes."""
        return frozenset(_fingerprint(image) for image in self.images if float(image.std()) > _UNIFORM)


def split_clips(calibration: str | None, given: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The calibration clip ("" = none) and the evaluation clips, as absolute paths.

    A folder of videos stands for its videos. Without a calibration clip, the first of several clips is taken.
    """
    clips = [str(clip) for path in given for clip in _expanded(video_path(path))]
    if calibration:
        return str(video_path(calibration)), tuple(clips)
    return (clips[0], tuple(clips[1:])) if len(clips) > 1 else ("", tuple(clips))


def _is_bag(path: Path) -> bool:
    return source_kind(str(path)).name == "bag"


def _expanded(path: Path) -> list[Path]:
    if not path.is_dir() or _is_bag(path):
        return [path]
    videos = sorted(file for file in path.iterdir() if file.suffix.lower() in _VIDEOS)
    return videos or [path]


def read_clip(path: Path, count: int) -> Clip:
    """At most count images. Raises OptimizeError if there are no images or too few different ones."""
    if _is_bag(path):
        clip = Clip(path, source_sha256(str(path)), tuple(video_images(path, count)))
    elif path.is_dir():
        files = sorted(one for one in path.iterdir() if one.suffix.lower() in _IMAGES and not one.is_dir())
        sampled = evenly(files, count)
        clip = Clip(path, _sha256(files), tuple(map(_read, sampled)), tuple(file.name for file in sampled))
    elif path.is_file():
        clip = Clip(path, _sha256([path]), tuple(video_images(path, count)))
    else:
        raise OptimizeError(f"{path}: expected a video, a bag or a folder of images, got no such path")
    _check(clip)
    return clip


def _check(clip: Clip) -> None:
    if not clip.images:
        raise OptimizeError(
            f"{clip.path}: expected a video that OpenCV reads or a folder with {', '.join(_IMAGES)}, got no "
            f"image"
        )
    different = len(clip.fingerprints)
    if different < MIN_IMAGES:
        raise OptimizeError(
            f"{clip.path}: expected at least {MIN_IMAGES} different images, got {different} in "
            f"{len(clip.images)}; use a longer clip with motion"
        )


def check_disjoint(calibration: Clip, evaluation: Sequence[Clip]) -> None:
    """Raise OptimizeError if the calibration clip shares a file or an image with an evaluation clip."""
    for clip in evaluation:
        if calibration.sha256 == clip.sha256 or calibration.fingerprints & clip.fingerprints:
            raise OptimizeError(
                f"{calibration.path} and {clip.path} contain the same images: a model must not be evaluated "
                f"on its calibration data; pass another clip with --calibration"
            )


def tiles(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The four quarters of each image: a classifier runs on parts of a frame."""
    parts = []
    for image in images:
        for rows in np.array_split(image, 2, axis=0):
            parts += np.array_split(rows, 2, axis=1)
    return parts


def write_images(images: Sequence[np.ndarray], folder: Path) -> str:
    """Write numbered PNG files to a new folder. Returns the SHA-256 of all pixels."""
    folder.mkdir(parents=True)
    digest = hashlib.sha256()
    for number, image in enumerate(images):
        data = cv2.imencode(".png", image)[1].tobytes()
        (folder / f"{number:03d}.png").write_bytes(data)
        digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def read_images(folder: Path) -> list[np.ndarray]:
    """The images that `write_images` wrote. Raises OptimizeError if they are missing."""
    files = sorted(folder.glob("*.png"))
    if not files:
        raise OptimizeError(f"{folder}: expected the images of this study, got none; start a new study")
    return [_read(file) for file in files]


def _read(file: Path) -> np.ndarray:
    try:
        return read_image_file(file)
    except ImageError as error:
        raise OptimizeError(f"{file}: {error}") from None


def video_images(path: Path, count: int) -> list[np.ndarray]:
    """At most count frames, evenly over a video; none if OpenCV cannot read it.

    Raises SourceError for a bag that cannot be read.
    """
    try:
        images, declared, read = _sampled(path, count)
        # The number in the container is often an estimate, wrong for unevenly spaced frames.
        return images if read == declared else _sampled(path, count, read)[0]
    except SourceError:
        if _is_bag(path):
            raise
        return []


def _sampled(path: Path, count: int, total: int | None = None) -> tuple[list[np.ndarray], int, int]:
    """At most count frames of a video of total frames; the number in the container; frames read.

    Reads sequentially: seeking is not frame-exact.
    """
    images, read = [], 0
    with closing(open_source(str(path.absolute()))) as capture:
        wanted = set(evenly(range(capture.frames if total is None else total), count))
        while capture.grab():
            if read in wanted and (image := capture.retrieve()) is not None:
                images.append(image)
            read += 1
        return images, capture.frames, read


def evenly(items: Sequence[T], count: int) -> list[T]:
    if len(items) <= count:
        return list(items)
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, count)]


def _fingerprint(image: np.ndarray) -> str:
    return hashlib.sha256(
        np.ascontiguousarray(image).tobytes() + bytes(str(image.shape), "ascii")
    ).hexdigest()


def _sha256(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
