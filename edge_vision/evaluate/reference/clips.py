"""Real clips as conditions. The reference is the every-frame detector; false entries are reviewed by eye."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_vision.bundles.store import cache_dir
from edge_vision.core.geometry.boxes import SAME_BOX_IOU, iou_matrix
from edge_vision.evaluate.conditions import Condition, GroundTruth
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.reference.events import Entry
from edge_vision.evaluate.reference.storage import ObjectBoxes
from edge_vision.offline.media_files import is_even, mean_rate_hz, source_name, source_sha256
from edge_vision.source.opening import open_source
from edge_vision.source.uri import SourceError

CLIPS = (
    "vtest.avi",
    "bikes.mp4",
    "bigbuckbunny.mp4",
    "carphone_pristine.mp4",
    "tvshow_van_cuts.mp4",
    "segway_crowd_pan.mp4",
    "segway_rider.mp4",
    "soccer_juggling.avi",
    "basketball.mp4",
    "opossum_snow.mp4",
    "sports2d_park.mp4",
    "coin_pen.mov",
    "tree_wind.avi",
)
REMOVED_FILE = Path(__file__).parent / "data" / "removed_events.json"
_FRAME_TOLERANCE = 2


@dataclass(frozen=True, slots=True)
class ClipSource:
    """The frames of a video file."""

    path: Path

    def render(self) -> Iterator[tuple[np.ndarray, GroundTruth]]:
        """Each frame, (h, w, 3) uint8 BGR, without ground truth."""
        for image in read_clip(self.path):
            yield image, []

    def fingerprint(self) -> str:
        """A hash of the file and of the decoder's version."""
        return hashlib.sha256(f"{source_sha256(str(self.path))} {cv2.__version__}".encode()).hexdigest()


def read_clip(path: Path) -> Iterator[np.ndarray]:
    """The frames of a video, (h, w, 3) uint8 BGR. Raises EvaluateError if it cannot be opened."""
    try:
        opened = open_source(str(path.absolute()))
    except SourceError as error:
        raise EvaluateError(str(error)) from None
    with closing(opened) as capture:
        while (image := capture.read()) is not None:
            yield image


def clip_condition(path: Path) -> Condition:
    """A video as a condition, named after its file. Raises EvaluateError if no frame can be read."""
    try:
        with closing(open_source(str(path))) as capture:
            times_s = [capture.time_s for _ in iter(capture.grab, False)]
            fps_hz, damage = capture.fps_hz, capture.damage
    except SourceError as error:
        raise EvaluateError(str(error)) from None
    if damage:
        print(damage, file=sys.stderr)
    if not times_s:
        raise EvaluateError(f"expected a video with frames, got none in {path}")
    # A container's rate is unusable for unevenly spaced frames: up to 1000 Hz in WebM.
    if len(times_s) > 1 and not math.isclose(mean_rate_hz(times_s), fps_hz, rel_tol=1e-4):
        fps_hz = mean_rate_hz(times_s)
    uneven_s = () if is_even(times_s) else tuple(times_s)
    source = partial(ClipSource, path)
    name = source_name(str(path))
    return Condition(name, name, False, "clip", fps_hz, len(times_s), source, uneven_s)


def clip_path(name: str) -> Path:
    """Where the set-up stores a clip of CLIPS."""
    return cache_dir() / "video" / name


def known_clips() -> list[Path]:
    """The clips that the set-up has fetched."""
    return [path for name in CLIPS if (path := clip_path(name)).is_file()]


def without_removed(
    path: Path, entries: Sequence[Entry], object_boxes: Sequence[ObjectBoxes]
) -> tuple[list[Entry], str]:
    """The entries without those that were reviewed as false, and a note about the review."""
    review = _reviews().get(source_sha256(str(path)))
    if review is None:
        return list(entries), "the events of this clip were not reviewed: some may be false"
    removed = review["removed"]
    kept = [entry for entry in entries if not any(_matches(entry, object_boxes, one) for one in removed)]
    return kept, (
        f"{len(entries) - len(kept)} of {len(entries)} entries were reviewed as false and left out "
        f"({REMOVED_FILE.name} lists {len(removed)} for the whole clip, with the reasons)"
    )


def _reviews() -> dict[str, Any]:
    reviews: dict[str, Any] = json.loads(REMOVED_FILE.read_text())["clips"]
    return reviews


def _matches(entry: Entry, object_boxes: Sequence[ObjectBoxes], removed: dict[str, Any]) -> bool:
    """Whether an entry is the removed one, with tolerances for the rounding of another runtime.

    Without a frame, it is a thing that is there all the time.
    """
    if removed["frame"] is not None and abs(entry.first - removed["frame"]) > _FRAME_TOLERANCE:
        return False
    box = object_boxes[entry.first][entry.object_id]
    return bool(iou_matrix(box[None], np.array([removed["box"]], np.float32))[0, 0] >= SAME_BOX_IOU)
