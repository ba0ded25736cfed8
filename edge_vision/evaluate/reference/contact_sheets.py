"""Contact sheets of a clip's events, for the review of false ones by eye."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.evaluate.reference.clips import clip_condition, read_clip
from edge_vision.evaluate.reference.detector import ReferenceDetector, reference_of
from edge_vision.evaluate.reference.events import Entry, clip_entries
from edge_vision.offline.media_files import source_sha256

CELL_PX = 190
COLUMNS, ROWS = 4, 7
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def write_sheets(video: Path, out: Path) -> Iterator[str]:
    """Write contact sheets to the existing folder `out`, and yield one line per written file.

    Each cell shows an entry's first frame beside the scene half a second before. entries.json lists the
    entries in the format of data/removed_events.json, to copy false ones there. Raises EvaluateError.
    """
    condition = clip_condition(video)
    detector = ReferenceDetector()
    reference = reference_of(condition, condition.n_frames, detector, lambda _: None)
    entries, object_boxes = clip_entries(reference)
    before = max(1, round(condition.fps_hz / 2))
    wanted = {at for entry in entries for at in (entry.first, max(0, entry.first - before))}
    frames = {at: image for at, image in enumerate(read_clip(video)) if at in wanted}
    labels = detector.bundle.labels
    found, cells = [], []
    for number, entry in enumerate(entries):
        box = object_boxes[entry.first][entry.object_id]
        label = _label(entry, box, reference.detections, labels)
        found.append({"frame": entry.first, "box": [round(float(v), 1) for v in box], "label": label})
        cells.append(
            _cell(
                frames[max(0, entry.first - before)],
                frames[entry.first],
                box,
                f"{number} f{entry.first} {label}",
            )
        )
    (out / "entries.json").write_text(
        json.dumps({"sha256": source_sha256(str(video)), "entries": found}, indent=1) + "\n"
    )
    yield f"{len(entries)} entries in {out / 'entries.json'}"
    for sheet, start in enumerate(range(0, len(cells), COLUMNS * ROWS)):
        path = out / f"sheet_{sheet}.png"
        cv2.imwrite(str(path), _grid(cells[start : start + COLUMNS * ROWS]))
        yield str(path)


def _label(entry: Entry, box: np.ndarray, found: list[Detections], labels: tuple[str, ...]) -> str:
    at = found[entry.first]
    return labels[int(at.class_ids[int(np.abs(at.xyxy_px - box).sum(axis=1).argmin())])]


def _cell(before: np.ndarray, image: np.ndarray, box: np.ndarray, text: str) -> np.ndarray:
    """The surroundings of the box on both frames, side by side."""
    shown = image.copy()
    left, top, right, bottom = (round(float(value)) for value in box)
    cv2.rectangle(shown, (left, top), (right, bottom), (0, 255, 255), 1)
    half = round(max(90, 1.2 * (right - left), 0.9 * (bottom - top)))
    middle = ((left + right) / 2, (top + bottom) / 2)
    pair = [cv2.getRectSubPix(one, (2 * half, 2 * half), middle) for one in (before, shown)]
    cell = np.hstack([cv2.resize(one, (CELL_PX, CELL_PX), interpolation=cv2.INTER_LINEAR) for one in pair])
    cv2.putText(cell, text, (4, 12), _FONT, 0.42, (0, 0, 255), 1, cv2.LINE_AA)
    return cell


def _grid(cells: list[np.ndarray]) -> np.ndarray:
    blank = np.zeros_like(cells[0])
    padded = cells + [blank] * (-len(cells) % COLUMNS)
    rows = [np.hstack(padded[at : at + COLUMNS]) for at in range(0, len(padded), COLUMNS)]
    return np.vstack(rows)
