"""Labelled images, or labelled frames of videos, in COCO's format.

Frames of videos use the keys of COCO-VID: `videos` (with name and, here, sha256), `video_id` and
`frame_index` of an image, `track_id` of an annotation. `iscrowd` marks regions in which detections do not
count.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_vision.bundles.store import sha256_of
from edge_vision.errors import ImageError
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.reference.clips import CLIPS, clip_path, read_clip
from edge_vision.offline.media_files import read_image_file
from edge_vision.optimize.data import ground_truth
from edge_vision.optimize.errors import OptimizeError

LABELS_FILE = Path(__file__).parent / "data" / "labels.json"
"""Our own labels of the public clips: docs/accuracy.md."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImage:
    """Labels of one image. path: of the image, or of the video with its frame number.

    size_px: width and height as declared, None if they are not. xyxy_px: (n, 4) float32. class_ids: (n,)
    index into the classes of the set. ignored: (n,) bool, regions in which detections do not count. areas:
    (n,) px^2, as declared. track_ids: (n,), 0 for none.
    """

    name: str
    path: Path
    frame: int | None
    size_px: tuple[int, int] | None
    xyxy_px: np.ndarray
    class_ids: np.ndarray
    ignored: np.ndarray
    areas: np.ndarray
    track_ids: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class LabelSet:
    """Labelled images, those of one video in order. classes: names in lower case."""

    file: Path
    classes: tuple[str, ...]
    images: tuple[LabelledImage, ...]

    @property
    def boxes(self) -> int:
        """Number of labelled objects, without ignored regions."""
        return sum(int((~one.ignored).sum()) for one in self.images)

    def videos(self) -> dict[Path, list[int]]:
        """For each video, the positions of its images."""
        found: dict[Path, list[int]] = defaultdict(list)
        for position, image in enumerate(self.images):
            if image.frame is not None:
                found[image.path].append(position)
        return dict(found)


def read_label_set(
    file: Path = LABELS_FILE, folder: Path | None = None, clips: Sequence[str] | None = None
) -> LabelSet:
    """The labels of a COCO JSON file.

    folder: of the images or videos, by default the file's own, then that of the public clips. clips: only
    the videos with these names, without suffix. Raises EvaluateError if the file is no COCO JSON, if a label
    belongs to no image or category, or if an image or video is missing or not the labelled one.
    """
    try:
        document = ground_truth.read_document(file)
    except OptimizeError as error:
        raise EvaluateError(str(error)) from None
    videos = _videos(file, document, folder, clips)
    categories = {one["id"]: str(one["name"]).lower() for one in document["categories"]}
    images = {
        one["id"]: _image(file, one, videos, folder)
        for one in document["images"]
        if clips is None or one.get("video_id") in videos
    }
    known = {one["id"] for one in document["images"]}
    annotations = defaultdict(list)
    for one in document["annotations"]:
        if one["image_id"] not in known or one["category_id"] not in categories:
            raise EvaluateError(f"{file}: expected the image and the category of each annotation, got {one}")
        if min(one["bbox"][2:]) <= 0:
            raise EvaluateError(f"{file}: expected a width and a height above 0, got the annotation {one}")
        annotations[one["image_id"]].append(one)
    classes = tuple(dict.fromkeys(categories.values()))
    numbers = {i: classes.index(name) for i, name in categories.items()}
    labelled = [_with_labels(image, annotations[i], numbers) for i, image in images.items()]
    _check_unique(file, labelled)
    labelled.sort(key=lambda one: (str(one.path), -1 if one.frame is None else one.frame))
    found = LabelSet(file, classes, tuple(labelled))
    if not found.boxes:
        raise EvaluateError(f"{file}: expected labelled objects, got none in {len(labelled)} images")
    return found


def _check_unique(file: Path, labelled: Sequence[LabelledImage]) -> None:
    """Raise EvaluateError for an image that is listed twice, or a track with two boxes in one image."""
    seen: set[tuple[Path, int | None]] = set()
    for one in labelled:
        where = f"{one.path}" if one.frame is None else f"frame {one.frame} of {one.path}"
        if (one.path, one.frame) in seen:
            raise EvaluateError(f"{file}: expected each image once, got {where} twice: merge their labels")
        seen.add((one.path, one.frame))
        ids, counts = np.unique(one.track_ids[one.track_ids > 0], return_counts=True)
        if (counts > 1).any():
            raise EvaluateError(
                f"{file}: expected one box of each track_id in an image, got track_id {ids[counts > 1][0]} "
                f"twice in {where}"
            )


def _videos(
    file: Path, document: dict[str, Any], folder: Path | None, clips: Sequence[str] | None
) -> dict[Any, Path]:
    """The selected videos by id."""
    declared = {one["id"]: one for one in document.get("videos", [])}
    names = {Path(str(one["name"])).stem for one in declared.values()}
    if unknown := sorted(set(clips or ()) - names):
        raise EvaluateError(
            f"{file}: expected clips out of {', '.join(sorted(names)) or 'none'}, got {', '.join(unknown)}"
        )
    return {
        i: _checked_video(_found(file, str(one["name"]), folder), one)
        for i, one in declared.items()
        if clips is None or Path(str(one["name"])).stem in clips
    }


def _found(file: Path, name: str, folder: Path | None) -> Path:
    """An image or video by its name in the labels. Raises EvaluateError if it is missing."""
    paths = [(folder or file.parent) / name]
    if folder is None and name in CLIPS:
        paths.append(clip_path(name))
    for path in paths:
        if os.path.isfile(path):  # Path.is_file raises for a name that is too long.
            return path
    advice = (
        f"run .venv/bin/python scripts/fetch_data.py {Path(name).stem}, or choose others with --clips"
        if name in CLIPS
        else "name their folder with --images"
    )
    raise EvaluateError(f"{file}: expected {name} in {paths[-1].parent}, found none; {advice}")


def _checked_video(path: Path, declared: dict[str, Any]) -> Path:
    expected = declared.get("sha256")
    if expected and (actual := sha256_of(path)) != expected:
        raise EvaluateError(
            f"{path}: expected the labelled video with sha256 {expected}, got {actual}; another version has "
            f"other frames"
        )
    return path


def _image(
    file: Path, declared: dict[str, Any], videos: dict[Any, Path], folder: Path | None
) -> LabelledImage:
    """An image without its labels."""
    size = (declared["width"], declared["height"]) if {"width", "height"} <= set(declared) else None
    name, frame = str(declared["file_name"]), None
    if "video_id" in declared:
        frame, path = declared.get("frame_index"), videos.get(declared["video_id"])
        if path is None or type(frame) is not int or frame < 0:
            raise EvaluateError(
                f"{file}: expected a video of `videos` and a frame_index from 0, got {declared}"
            )
    else:
        path = _found(file, name, folder)
    return LabelledImage(name, path, frame, size, *[np.zeros(0)] * 5)


def _with_labels(
    image: LabelledImage, annotations: Sequence[dict[str, Any]], numbers: dict[Any, int]
) -> LabelledImage:
    boxes = np.array([one["bbox"] for one in annotations], np.float32).reshape(-1, 4)
    return replace(
        image,
        xyxy_px=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
        class_ids=np.array([numbers[one["category_id"]] for one in annotations], np.int32),
        ignored=np.array([bool(one.get("iscrowd", 0)) for one in annotations], bool),
        areas=np.array([one.get("area", one["bbox"][2] * one["bbox"][3]) for one in annotations], np.float64),
        track_ids=np.array([one.get("track_id") or 0 for one in annotations], np.int64),
    )


def labelled_frames(labels: LabelSet) -> Iterator[tuple[int, np.ndarray]]:
    """The position of each image and its pixels, (h, w, 3) uint8 BGR; videos are decoded in order.

    Raises EvaluateError for an unreadable image, one of another size, or a frame beyond the end.
    """
    for path, positions in labels.videos().items():
        yield from _video_frames(labels, path, positions)
    for position, image in enumerate(labels.images):
        if image.frame is None:
            try:
                pixels = read_image_file(image.path)
            except ImageError as error:
                raise EvaluateError(f"{image.path}: {error}") from None
            yield position, _of_size(image, pixels)


def write_frames(labels: LabelSet, folder: Path) -> int:
    """Write the labelled frames of videos as PNG files of their names in the labels. Returns their number.

    Raises EvaluateError if one cannot be written.
    """
    written: set[Path] = set()
    for position, pixels in labelled_frames(labels):
        image = labels.images[position]
        if image.frame is not None:
            file = folder / Path(image.name).name
            if file in written or file.suffix != ".png" or not cv2.imwrite(str(file), pixels):
                raise EvaluateError(
                    f"{file}: expected different names that end in .png, and a folder to write to"
                )
            written.add(file)
    return len(written)


def _video_frames(labels: LabelSet, path: Path, positions: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    wanted = {labels.images[position].frame: position for position in positions}
    last, count = max(frame for frame in wanted if frame is not None), 0
    for number, pixels in enumerate(read_clip(path)):
        count += 1
        if number in wanted:
            yield wanted[number], _of_size(labels.images[wanted[number]], pixels)
        if number == last:
            return
    raise EvaluateError(f"{path}: expected frame {last}, which is labelled, got {count} frames")


def _of_size(image: LabelledImage, pixels: np.ndarray) -> np.ndarray:
    actual = (pixels.shape[1], pixels.shape[0])
    if image.size_px is not None and image.size_px != actual:
        raise EvaluateError(
            f"{image.path}: expected {image.size_px[0]!r}x{image.size_px[1]!r} pixels, as labelled, got "
            f"{actual[0]}x{actual[1]}"
        )
    return pixels
