"""Train and judge images from clips: different clips, or time ranges of the same ones with a gap between.

Train images are selected for diversity, judge images evenly. An image that is in both is an error, as in a
clip that repeats itself or stands still.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_vision.dataset.export import JUDGE_SHARE, TRAIN_SHARE
from edge_vision.errors import ImageError
from edge_vision.offline.media_files import read_image_file, source_sha256
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.settings import MIN_IMAGES
from edge_vision.source.opening import open_source
from edge_vision.source.uri import bag_files, video_path
from edge_vision.train.data.labels import Labels, collected_pictures, is_collected, scaled

MAX_SIDE_PX = 1024
"""Larger images are reduced to this, for memory. Models have smaller inputs."""
_CANDIDATES = 400
_THUMBNAIL_PX = 24
_BLANK = 2.0
_LEAST_PX = 8
"""A crop of a smaller image has no pixel."""
_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


@dataclass(frozen=True, slots=True)
class ClipRange:
    """What was used of a clip, for the lineage. Times in s; of a folder, numbers of images."""

    path: str
    sha256: str
    start: float
    end: float


@dataclass(frozen=True, slots=True, eq=False)
class TimeSplit:
    """train, judge: (h, w, 3) uint8 BGR. train_labels, judge_labels: of each image."""

    train: tuple[np.ndarray, ...]
    judge: tuple[np.ndarray, ...]
    train_ranges: tuple[ClipRange, ...]
    judge_ranges: tuple[ClipRange, ...]
    train_labels: tuple[Labels, ...]
    judge_labels: tuple[Labels, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    """thumbnail: flat grey values. fingerprint: "" for a blank image."""

    number: int
    time: float
    thumbnail: np.ndarray
    fingerprint: str


def split(
    videos: Sequence[str],
    judge: Sequence[str],
    train_count: int,
    judge_count: int,
    show: Callable[[str], None] = lambda text: None,
) -> TimeSplit:
    """At most so many images of all clips together. judge: clips; empty = the last part of each of `videos`.
    show: receives the progress.

    Raises OptimizeError if train and judge images overlap or are too few, SourceError for unreadable clips.
    """
    paths, judge_paths = ([video_path(one) for one in given] for given in (videos, judge))
    scanned = {path: _scan(path, show) for path in dict.fromkeys([*paths, *judge_paths])}
    ends = {path: max((one.time for one in found), default=0.0) for path, found in scanned.items()}
    whole = bool(judge_paths)
    train_parts = [
        (path, [c for c in scanned[path] if whole or c.time <= TRAIN_SHARE * ends[path]]) for path in paths
    ]
    judge_parts = [
        (path, [c for c in scanned[path] if whole or c.time >= (1 - JUDGE_SHARE) * ends[path]])
        for path in judge_paths or paths
    ]
    _check(train_parts, judge_parts)
    trained = [(p, _diverse(found, -(-train_count // len(train_parts)))) for p, found in train_parts]
    judged = [(p, _evenly(found, -(-judge_count // len(judge_parts)))) for p, found in judge_parts]
    images: dict[tuple[Path, int], np.ndarray] = {}
    labels = {path: _labels(path) for path in scanned if is_collected(path)}
    for path in scanned:
        wanted = {c.number for p, found in (*trained, *judged) if p == path for c in found}
        for number, _, image in _images(path):
            if number in wanted:
                images[path, number] = image
            show(f"reading {path.name}: {number + 1} frames")
    hashes = {path: _sha256(path) for path in scanned}
    train, judged_images = (
        tuple(images[path, one.number] for path, found in parts for one in found)
        for parts in (trained, judged)
    )
    train_labels, judge_labels = (
        tuple(labels[path][one.number] if path in labels else None for path, found in parts for one in found)
        for parts in (trained, judged)
    )
    train_ranges, judge_ranges = (
        tuple(ClipRange(str(path), hashes[path], found[0].time, found[-1].time) for path, found in parts)
        for parts in (train_parts, judge_parts)
    )
    return TimeSplit(train, judged_images, train_ranges, judge_ranges, train_labels, judge_labels)


def check_clips(videos: Sequence[str], judge: Sequence[str], other: Sequence[str]) -> None:
    """Raise SourceError or OptimizeError for a clip without an image that can be decoded, for one to judge
    that is also one to train on, and for another scene that is either."""
    for clip in (*videos, *judge, *other):
        with closing(_images(video_path(clip))) as images:
            if next(images, None) is None:
                raise OptimizeError(f"{clip}: expected a clip with images, got none that can be decoded")
    trained, judged = ({video_path(clip).resolve() for clip in clips} for clips in (videos, judge))
    for clip in judge:
        if video_path(clip).resolve() in trained:
            raise OptimizeError(
                f"--judge {clip}: expected another clip than those of --video, got one of them; without it "
                f"the last {JUDGE_SHARE:.0%} of each --video judge"
            )
    for clip in other:
        if video_path(clip).resolve() in trained | judged:
            raise OptimizeError(f"--other {clip}: expected another scene, got a clip to train on or to judge")


def evenly_read(clip: str, count: int, show: Callable[[str], None] = lambda text: None) -> list[np.ndarray]:
    """At most so many images of a whole clip. show: receives the progress. Raises SourceError,
    OptimizeError."""
    path = video_path(clip)
    wanted = {one.number for one in _evenly(_scan(path, show), count)}
    return [image for number, _, image in _images(path) if number in wanted]


Parts = list[tuple[Path, list[_Candidate]]]


def _check(train: Parts, judge: Parts) -> None:
    both = [{c.fingerprint for _, found in parts for c in found if c.fingerprint} for parts in (train, judge)]
    names = ", ".join(str(path) for path, _ in train)
    for use, found in zip(("train", "judge"), both, strict=True):
        if len(found) < MIN_IMAGES:
            raise OptimizeError(
                f"{names}: expected at least {MIN_IMAGES} different images to {use}, got {len(found)}; use a "
                f"longer clip with motion"
            )
    if not both[0].isdisjoint(both[1]):
        raise OptimizeError(
            f"{names}: expected other images to judge than to train, got {len(both[0] & both[1])} in both, "
            f"as in a clip that repeats itself; pass another clip with --judge"
        )


def _images(path: Path) -> Generator[tuple[int, float, np.ndarray], None, None]:
    """Number, time and pixels of each image that can be decoded."""
    if path.is_dir() and not bag_files(path):
        files = _files(path)
        for number, file in enumerate(files):
            try:
                picture = read_image_file(file)
            except ImageError as error:
                raise OptimizeError(f"{file}: {error}") from None
            height_px, width_px = picture.shape[:2]
            if min(height_px, width_px) < _LEAST_PX:
                expected = f"expected {_LEAST_PX} px or more each way"
                raise OptimizeError(f"{file}: {expected}, got {width_px}x{height_px}")
            yield number, float(number), _reduced(picture)
        return
    with closing(open_source(str(path))) as capture:
        number = 0
        while capture.grab():
            image = capture.retrieve()
            if image is not None:
                yield number, capture.time_s, _reduced(image)
            number += 1


def _files(path: Path) -> list[Path]:
    """The images of a folder in order; of collected pictures those that were not rejected."""
    if is_collected(path):
        return [file for file, _ in collected_pictures(path)]
    return sorted(one for one in path.iterdir() if one.suffix.lower() in _SUFFIXES and not one.is_dir())


def _labels(path: Path) -> list[Labels]:
    """Of each image of a folder of collected pictures, in pixels of the reduced image."""
    return [
        None
        if labels is None
        else scaled(labels, min(1.0, MAX_SIDE_PX / max(read_image_file(file).shape[:2])))
        for file, labels in collected_pictures(path)
    ]


def _reduced(image: np.ndarray) -> np.ndarray:
    factor = MAX_SIDE_PX / max(image.shape[:2])
    return (
        image if factor >= 1 else cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    )


def _scan(path: Path, show: Callable[[str], None]) -> list[_Candidate]:
    """Candidates evenly over a clip; its length need not be known."""
    found: list[_Candidate] = []
    stride = 1
    for number, time, image in _images(path):
        show(f"scanning {path.name}: {number + 1} frames")
        if number % stride:
            continue
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        small = cv2.resize(grey, (_THUMBNAIL_PX, _THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
        blank = float(grey.std()) <= _BLANK
        fingerprint = "" if blank else hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
        found.append(_Candidate(number, time, small.ravel().astype(np.float32), fingerprint))
        if len(found) > 2 * _CANDIDATES:
            found, stride = found[::2], 2 * stride
    return found


def _diverse(candidates: list[_Candidate], count: int) -> list[_Candidate]:
    """At most so many, by farthest-point selection of their thumbnails, in order of time."""
    usable = [one for one in candidates if one.fingerprint]
    if len(usable) <= count:
        return usable
    points = np.stack([one.thumbnail for one in usable])
    distances = np.full(len(points), np.inf)
    chosen = [0]
    while len(chosen) < count:
        distances = np.minimum(distances, np.square(points - points[chosen[-1]]).sum(1))
        chosen.append(int(distances.argmax()))
    return [usable[i] for i in sorted(set(chosen))]


def _evenly(candidates: list[_Candidate], count: int) -> list[_Candidate]:
    usable = [one for one in candidates if one.fingerprint]
    if not usable:
        return []
    return [usable[i] for i in dict.fromkeys(np.linspace(0, len(usable) - 1, count).astype(int).tolist())]


def _sha256(path: Path) -> str:
    if not path.is_dir() or bag_files(path):
        return source_sha256(str(path))
    digests = [source_sha256(str(file)) for file in _files(path)]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()
