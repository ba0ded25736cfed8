"""Real clips as conditions: no truth but what the every-frame detector sees, and an eye over its events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_vision.bundles.store import cache_dir, sha256_of
from edge_vision.core.geometry.boxes import SAME_BOX_IOU, iou_matrix
from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.reference.detector import TruthBoxes
from edge_vision.evaluate.reference.events import Entry
from edge_vision.evaluate.sequences.sequence import Truth
from edge_vision.evaluate.sequences.source_clips import read_clip
from edge_vision.source.capture import Capture, SourceError

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
REMOVED = Path(__file__).parent / "data" / "removed_events.json"
_FRAMES_OFF = 2


@dataclass(frozen=True, slots=True)
class ClipSource:
    """The frames of a video file."""

    path: Path

    def render(self) -> Iterator[tuple[np.ndarray, Truth]]:
        """Each frame, (h, w, 3) uint8 BGR; nobody knows its truth."""
        for image in read_clip(self.path):
            yield image, []

    def fingerprint(self) -> str:
        """The file's hash, and what decodes it."""
        return hashlib.sha256(f"{sha256_of(self.path)} {cv2.__version__}".encode()).hexdigest()


def clip_condition(path: Path) -> Condition:
    """A video as a condition, named after its file. Raises EvaluateError where no frame can be read."""
    if not path.is_file():
        raise EvaluateError(f"expected a video file, got {path}, which is none")
    try:
        capture = Capture(str(path))
    except SourceError as error:
        raise EvaluateError(str(error)) from None
    try:
        if capture.read() is None:
            raise EvaluateError(f"expected a video with frames, got none in {path}")
        fps_hz, frames = capture.fps_hz, capture.frames
    finally:
        capture.close()
    # A container that does not tell how many frames it has is read to its end.
    n_frames = frames if frames > 0 else sum(1 for _ in read_clip(path))
    return Condition(path.stem, path.stem, False, "clip", fps_hz, n_frames, lambda: ClipSource(path))


def known_clips() -> list[Path]:
    """The clips that the set-up fetches and that are there."""
    return [path for name in CLIPS if (path := cache_dir() / "video" / name).is_file()]


def without_removed(
    path: Path, entries: Sequence[Entry], truth: Sequence[TruthBoxes]
) -> tuple[list[Entry], str]:
    """The entries that an eye left in, and a note on how many it removed, or that nobody has looked."""
    sheet = _sheets().get(sha256_of(path))
    if sheet is None:
        return list(entries), "nobody has looked at the events of this clip: false ones are among them"
    removed = sheet["removed"]
    kept = [entry for entry in entries if not any(_is(entry, truth, one) for one in removed)]
    return kept, (
        f"{len(entries) - len(kept)} of {len(entries)} entries were found false by eye and left out "
        f"({REMOVED.name} lists {len(removed)} and says how)"
    )


def _sheets() -> dict[str, Any]:
    sheets: dict[str, Any] = json.loads(REMOVED.read_text())["clips"]
    return sheets


def _is(entry: Entry, truth: Sequence[TruthBoxes], removed: dict[str, Any]) -> bool:
    """True for the removed entry: the same place and time, up to what another runtime's rounding does."""
    if abs(entry.first - removed["frame"]) > _FRAMES_OFF:
        return False
    box = truth[entry.first][entry.object_id]
    return bool(iou_matrix(box[None], np.array([removed["box"]], np.float32))[0, 0] >= SAME_BOX_IOU)
