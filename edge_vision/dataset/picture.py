"""A kept picture: why and when it was kept, what the model proposes, and what a reviewer made of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edge_vision.core.detections import Detections
from edge_vision.dataset.errors import DatasetError
from edge_vision.dataset.selection import REASONS

OPEN, ACCEPTED, REJECTED = STATES = ("open", "accepted", "rejected")
MAX_BOXES = 1000
MAX_LABEL_CHARS = 200
_MAX_SIDE_PX, _MAX_REVISION = 100_000, 2**53
"""Numbers that JavaScript has, too."""
_NAME = re.compile(rf"\d{{8}}T\d{{9}}_[A-Za-z0-9.-]{{0,64}}_({'|'.join(REASONS)})(_\d{{1,6}})?")


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """bbox: left, top, width, height in pixels of the picture. score: of a proposal, None of a label."""

    label: str
    bbox: tuple[float, float, float, float]
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """name: of its files, without suffix; names sort by time. stamp_ns, frame_id: the image's header.
    collected: UTC, ISO 8601. classes: that it was kept for. bundle, bundle_sha256: the model that proposes,
    "" = unknown; threshold: of its scores. inferred: False if the proposals are predicted tracks.
    picture_hash, crop_hash: see `picture_hash`. other: what the other model of a disagreement found.

    state, boxes: of the review, boxes only of accepted and corrected pictures; revision counts its changes.
    """

    name: str
    width_px: int
    height_px: int
    stamp_ns: int
    frame_id: str
    camera: str
    collected: str
    reason: str
    classes: tuple[str, ...]
    bundle: str = ""
    bundle_sha256: str = ""
    threshold: float = 0.0
    inferred: bool = True
    blurred: bool = False
    picture_hash: int = 0
    crop_hash: int = 0
    proposals: tuple[LabelledBox, ...] = ()
    other: tuple[LabelledBox, ...] = ()
    state: str = OPEN
    boxes: tuple[LabelledBox, ...] | None = None
    revision: int = 0
    reviewed: str = field(default="")

    @property
    def day(self) -> str:
        """The day of its quota, UTC."""
        return self.collected[:10]

    @property
    def labels(self) -> tuple[LabelledBox, ...]:
        """The reviewed boxes; before a review the proposals that reach the threshold."""
        if self.boxes is not None:
            return self.boxes
        return tuple(one for one in self.proposals if (one.score or 0.0) >= self.threshold)

    def to_json(self) -> str:
        """The contents of its file."""
        return json.dumps(asdict(self))


def is_name(text: str) -> bool:
    """Whether a collector gives such names; they are safe as file names."""
    return _NAME.fullmatch(text) is not None


def boxes_of(found: Detections, labels: Sequence[str]) -> tuple[LabelledBox, ...]:
    """Detections with the names of their classes."""
    boxes = []
    for xyxy, score, class_id in zip(found.xyxy_px, found.scores, found.class_ids, strict=True):
        left, top, right, bottom = (round(float(one), 1) for one in xyxy)
        size = round(right - left, 1), round(bottom - top, 1)
        boxes.append(LabelledBox(label_of(int(class_id), labels), (left, top, *size), round(float(score), 4)))
    return tuple(boxes)


def label_of(class_id: int, labels: Sequence[str]) -> str:
    """The name of a class, as `class 3` if it is unknown."""
    return labels[class_id] if 0 <= class_id < len(labels) else f"class {class_id}"


def parse_picture(text: str, name: str) -> Picture:
    """The picture of a file. Raises DatasetError if the file is damaged, or of another name."""
    try:
        values = dict(json.loads(text))
        for key in ("proposals", "other", "boxes"):
            if key in values and (key != "boxes" or values[key] is not None):
                values[key] = parse_boxes(values[key])
        picture = Picture(**{**values, "classes": tuple(map(str, values["classes"]))})
        _check(picture, name)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise DatasetError(
            f"records/{name}.json: expected the record of a picture, got: {error!s:.200}; remove it and its "
            f"picture"
        ) from None
    return picture


def _check(picture: Picture, name: str) -> None:
    if picture.name != name or not is_name(name):
        raise ValueError(f"name {picture.name!r:.80}")
    for key, kind in (("width_px", int), ("height_px", int), ("stamp_ns", int), ("revision", int)):
        if type(getattr(picture, key)) is not kind or getattr(picture, key) < 0:
            raise ValueError(f"{key} {getattr(picture, key)!r:.80}")
    if not (max(picture.width_px, picture.height_px) <= _MAX_SIDE_PX and picture.revision <= _MAX_REVISION):
        raise ValueError(f"size {picture.width_px} x {picture.height_px}, revision {picture.revision}")
    for key in ("inferred", "blurred"):
        if type(getattr(picture, key)) is not bool:
            raise ValueError(f"{key} {getattr(picture, key)!r:.80}")
    for key in ("frame_id", "camera", "collected", "bundle", "bundle_sha256", "reviewed"):
        if not isinstance(getattr(picture, key), str):
            raise ValueError(f"{key} {getattr(picture, key)!r:.80}")
    for key in ("picture_hash", "crop_hash"):
        if type(getattr(picture, key)) is not int or not 0 <= getattr(picture, key) < 2**64:
            raise ValueError(f"{key} {getattr(picture, key)!r:.80}")
    if picture.state not in STATES or picture.reason not in REASONS:
        raise ValueError(f"state {picture.state!r:.80}, reason {picture.reason!r:.80}")
    if not math.isfinite(picture.threshold):
        raise ValueError(f"threshold {picture.threshold}")


def clipped(boxes: Iterable[LabelledBox], width_px: int, height_px: int) -> tuple[LabelledBox, ...]:
    """The parts of the boxes within a picture. Raises DatasetError if nothing of one is."""
    found = []
    for box in boxes:
        left, top, width, height = box.bbox
        right, bottom = min(left + width, float(width_px)), min(top + height, float(height_px))
        left, top = max(left, 0.0), max(top, 0.0)
        sides = round(right - left, 2), round(bottom - top, 2)
        if min(sides) <= 0:
            raise DatasetError(
                f"{box.label}: expected a box within {width_px} x {height_px} px, got {box.bbox}; move it"
            )
        found.append(replace(box, bbox=(round(left, 2), round(top, 2), *sides)))
    return tuple(found)


def parse_boxes(values: Any) -> tuple[LabelledBox, ...]:
    """Boxes from JSON. Raises ValueError, TypeError or KeyError."""
    if not isinstance(values, (list, tuple)) or len(values) > MAX_BOXES:
        raise ValueError(f"boxes: expected a list of at most {MAX_BOXES}, got {values!r:.80}")
    return tuple(map(_box, values))


def _box(value: Mapping[str, Any]) -> LabelledBox:
    label, score = value["label"], value.get("score")
    left, top, width, height = numbers = tuple(value["bbox"])
    if not isinstance(label, str) or not 0 < len(label.strip()) <= MAX_LABEL_CHARS:
        raise ValueError(f"label: expected 1 to {MAX_LABEL_CHARS} characters, got {label!r:.80}")
    label.encode()  # Raises ValueError for half a character, which JSON may hold and no file of labels may.
    if not all(type(one) in (int, float) and abs(one) <= _MAX_SIDE_PX for one in numbers):
        raise ValueError(f"bbox: expected four finite numbers, got {numbers!r:.80}")
    if min(width, height) <= 0:
        raise ValueError(f"bbox: expected a width and height above 0, got {width:g} x {height:g}")
    if score is not None and not (type(score) in (int, float) and 0 <= score <= 1):
        raise ValueError(f"score: expected 0 to 1, got {score!r:.80}")
    return LabelledBox(
        label.strip(),
        (float(left), float(top), float(width), float(height)),
        None if score is None else float(score),
    )
