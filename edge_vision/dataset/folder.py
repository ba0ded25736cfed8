"""A folder of kept pictures, which one collector and any number of reviewers use at the same time.

    .edge_vision-dataset               marks the folder as ours
    images/NAME.jpg                    a picture
    records/NAME.json                  the same picture's record: its only source of truth
    annotations/instances_default.json all records in COCO's format, made from them

A file is whole or absent at any time, also after a kill or a power cut. A picture counts once it has a
record, which is written last. Only files with names that a collector gives are ever removed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from edge_vision.backends.runtimes.engine_cache import write_file
from edge_vision.dataset.coco import IMAGE_SUFFIX, coco_document
from edge_vision.dataset.errors import DatasetError, ReviewConflict
from edge_vision.dataset.picture import (
    ACCEPTED,
    OPEN,
    STATES,
    LabelledBox,
    Picture,
    clipped,
    is_name,
    parse_picture,
)

MARKER = ".edge_vision-dataset"
COCO_FILE = "annotations/instances_default.json"
_LABELS = "labels.json"
_MAX_RECORD_BYTES, _MAX_IMAGE_BYTES = 1 << 23, 1 << 28
_LOCK, _COLLECTOR = ".lock", ".collector"
_FOLDERS = ("images", "records", "annotations")
_MARKER_TEXT = "Pictures of edge_vision, docs/dataset.md. Its collector may remove unreviewed ones.\n"
_KEPT_SHARE = 0.9
"""Of the limit, to which the folder is reduced: not a removal for each picture."""
_UNFINISHED = ".writing-"


class DatasetFolder:
    """Any thread; every method reads the files, as other processes change them."""

    def __init__(self, folder: Path) -> None:
        """An existing folder of pictures. Raises DatasetError if it is none."""
        self.folder = folder.expanduser()
        if not (self.folder / MARKER).is_file():
            what = "another folder" if self.folder.is_dir() else "no such folder"
            raise DatasetError(
                f"{self.folder}: expected a folder of collected pictures (with {MARKER}), got {what}; see "
                f"docs/dataset.md"
            )

    @classmethod
    def create(cls, folder: Path) -> DatasetFolder:
        """The folder, which is made if it is missing or empty. Raises DatasetError if it is anything else."""
        folder = folder.expanduser()
        try:
            if not (folder / MARKER).is_file():
                if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                    raise DatasetError(
                        f"{folder}: expected a new or empty folder, or one of collected pictures, got one "
                        f"with other files; choose another"
                    )
                folder.mkdir(parents=True, exist_ok=True)
                write_file(folder / MARKER, _MARKER_TEXT.encode())
            for name in _FOLDERS:
                (folder / name).mkdir(exist_ok=True)
        except OSError as error:
            raise DatasetError(
                f"{folder}: expected a folder to write to, got: {error.strerror}; choose another"
            ) from None
        return cls(folder)

    # Reading.
    def names(self) -> list[str]:
        """The names of all pictures, the oldest first."""
        try:
            found = [file.name for file in os.scandir(self.folder / "records")]
        except FileNotFoundError:
            return []
        return sorted(name[:-5] for name in found if name.endswith(".json") and is_name(name[:-5]))

    def image_path(self, name: str) -> Path:
        """Of a picture. Raises DatasetError if no picture could have this name."""
        return self._checked("images", name, IMAGE_SUFFIX)

    def image(self, name: str) -> bytes:
        """The JPEG of a picture. Raises DatasetError, OSError."""
        return _contents(self.image_path(name), _MAX_IMAGE_BYTES)

    def _checked(self, kind: str, name: str, suffix: str) -> Path:
        if not is_name(name):
            raise DatasetError(f"expected the name of a picture in {self.folder}, got {name!r:.80}")
        return self.folder / kind / f"{name}{suffix}"

    def read(self, name: str) -> Picture:
        """One picture. Raises DatasetError if it is gone or damaged."""
        file = self._checked("records", name, ".json")
        try:
            picture = parse_picture(_contents(file, _MAX_RECORD_BYTES).decode(), name)
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"{file}: expected the record of a picture, got: {error!s:.200}") from None
        image = self.image_path(name)
        if image.is_symlink() or not image.is_file():
            raise DatasetError(
                f"{image}: expected the picture of {file.name}, got none; restore it, or remove the record"
            )
        return picture

    def pictures(self, damaged: list[str] | None = None) -> Iterator[Picture]:
        """All pictures, the oldest first. damaged: receives what is wrong with those that are left out."""
        for name in self.names():
            try:
                yield self.read(name)
            except DatasetError as error:
                if damaged is not None:
                    damaged.append(str(error))

    def labels(self) -> list[str]:
        """The labels of the models that have proposed, in their order."""
        try:
            found = json.loads(_contents(self.folder / _LABELS, _MAX_RECORD_BYTES))
            return [str(one) for one in found] if isinstance(found, list) else []
        except (OSError, ValueError, RecursionError):
            return []

    # Writing.
    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, in all processes."""
        with (self.folder / _LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def add_labels(self, labels: Sequence[str]) -> None:
        """Remember the labels of a model. Raises OSError."""
        with self._locked():
            known = self.labels()
            if more := [one for one in dict.fromkeys(labels) if one not in known]:
                write_file(self.folder / _LABELS, json.dumps(known + more).encode())

    def add(self, picture: Picture, jpeg: bytes) -> Picture:
        """Write a picture; returns it under its final name. Raises OSError, and then leaves nothing."""
        name, number = picture.name, 2
        while (self.folder / "records" / f"{name}.json").exists():
            name, number = f"{picture.name}_{number}", number + 1
        image, picture = self.image_path(name), replace(picture, name=name)
        write_file(image, jpeg)
        try:
            write_file(self._checked("records", name, ".json"), picture.to_json().encode())
        except OSError:
            image.unlink(missing_ok=True)
            raise
        return picture

    def review(
        self, name: str, revision: int, state: str, boxes: Sequence[LabelledBox] | None, now: datetime
    ) -> Picture:
        """Save a review of the given revision. boxes: None = the proposals as they are.

        Raises ReviewConflict if another reviewer was faster, DatasetError, OSError.
        """
        if state not in STATES:
            raise DatasetError(f"state: expected one of {', '.join(STATES)}, got {state!r:.80}")
        with self._locked():
            before = self.read(name)
            if before.revision != revision:
                raise ReviewConflict(
                    f"{name}: expected a change of revision {before.revision}, got one of {revision}: another"
                    f" reviewer has saved it meanwhile; look at it again"
                )
            kept = before.labels if boxes is None and state == ACCEPTED else boxes
            labels = None
            if kept is not None:
                plain = (replace(one, score=None) for one in kept)
                labels = clipped(plain, before.width_px, before.height_px)
            picture = replace(
                before, state=state, boxes=labels, revision=revision + 1, reviewed=utc_text(now)
            )
            write_file(self._checked("records", name, ".json"), picture.to_json().encode())
        return picture

    def write_coco(self) -> None:
        """Write the annotations of all pictures. Raises OSError."""
        with self._locked():
            self._write_coco(())

    def _write_coco(self, without: Sequence[str]) -> None:
        leaving = set(without)
        kept = (one for one in self.pictures() if one.name not in leaving)
        document = coco_document(kept, self.labels(), "Collected by edge_vision")
        (self.folder / COCO_FILE).parent.mkdir(exist_ok=True)
        write_file(self.folder / COCO_FILE, document)

    # The collector.
    @contextmanager
    def collecting(self) -> Iterator[None]:
        """The right to add pictures, for one collector. Removes what a killed one has left unfinished.

        Raises DatasetError if another collector has it.
        """
        with (self.folder / _COLLECTOR).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DatasetError(
                    f"{self.folder}: expected a folder of its own for each collector, got one that another "
                    f"collector writes to; choose another"
                ) from None
            with self._locked():
                self._remove_unfinished()
            yield

    def _remove_unfinished(self) -> None:
        for kind in _FOLDERS:
            for file in (self.folder / kind).glob(f"{_UNFINISHED}*"):
                file.unlink(missing_ok=True)
        complete = set(self.names())
        for file in (self.folder / "images").glob(f"*{IMAGE_SUFFIX}"):
            if is_name(file.stem) and file.stem not in complete:
                file.unlink(missing_ok=True)

    def size_bytes(self) -> int:
        """Of all pictures and records."""
        return sum(self.bytes_of(name) for name in self.names())

    def bytes_of(self, name: str) -> int:
        """Of a picture and its record."""
        files = self._checked("images", name, IMAGE_SUFFIX), self._checked("records", name, ".json")
        return sum(file.lstat().st_size for file in files if os.path.lexists(file))

    def make_room(self, limit_bytes: int) -> tuple[int, int]:
        """Remove the oldest pictures without a review until the rest is well within the limit.

        Returns the number of removed pictures and the remaining bytes, which reviewed pictures may keep above
        the limit. The annotations are written first: they never name a missing picture. Raises OSError.
        """
        with self._locked():
            sizes = {name: self.bytes_of(name) for name in self.names()}
            left, removed = sum(sizes.values()), []
            for name, size in sizes.items():
                if left <= _KEPT_SHARE * limit_bytes:
                    break
                if self._is_untouched(name):
                    removed.append(name)
                    left -= size
            if removed:
                self._write_coco(removed)
            for name in removed:
                self._checked("records", name, ".json").unlink(missing_ok=True)
                self.image_path(name).unlink(missing_ok=True)
        return len(removed), left

    def _is_untouched(self, name: str) -> bool:
        try:
            picture = self.read(name)
        except DatasetError:  # Somebody has to look at it.
            return False
        return picture.state == OPEN and picture.revision == 0


def _contents(file: Path, max_bytes: int) -> bytes:
    """Of a file in the folder: a link may lead out of it, a pipe may never end. Raises OSError."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as opened:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > max_bytes:
            raise OSError(errno.EINVAL, f"expected a file of at most {max_bytes} bytes", str(file))
        return opened.read(max_bytes)


def utc_text(now: datetime) -> str:
    """A time of records, as 2026-05-01T12:00:00.000Z."""
    return now.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def picture_name(now: datetime, camera: str, reason: str) -> str:
    """The name of a new picture. camera: a namespace."""
    stamp = now.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%S%f")[:-3]
    place = "".join(one if one.isascii() and one.isalnum() else "-" for one in camera.strip("/"))[:64]
    return f"{stamp}_{place}_{reason}"
