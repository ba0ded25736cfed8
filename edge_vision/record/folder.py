"""The folder of the recordings: names, space, retention, and what an earlier process left."""

from __future__ import annotations

import errno
import math
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from edge_vision.record.mcap_writer import LIBRARY
from edge_vision.record.recording_file import MAGIC, PART, recover

MIN_FREE_BYTES = 100_000_000
"""A recording ends before the disk has less space than this."""
DAY_S = 86_400.0
CLOCK_SET_S = 1_577_836_800
"""2020-01-01. An earlier time means that the clock was not set: the age of a file is unknown."""
# Linux: with the time in which the machine was suspended.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_OURS = re.compile(r"edge_vision_[\w-]+_\d{8}T\d{6}\.\d{3}Z_[\w-]+\.mcap", re.ASCII)
_HEAD_BYTES = 64
_OF_OTHERS = (FileNotFoundError, PermissionError)
"""A file that another user owns, or that somebody deletes meanwhile, is no reason not to record."""


class Retention(NamedTuple):
    """What is kept. max_age_days: 0 = of any age."""

    max_total_bytes: int
    max_age_days: float


class RecordingFolder:
    """deleted: recordings that retention has deleted. recovered: files of earlier processes."""

    def __init__(self, path: Path, camera: str) -> None:
        """camera: the name of the pipeline in file names."""
        self.path = path
        self._camera = re.sub(r"[^\w]+", "-", camera, flags=re.ASCII).strip("-") or "pipeline"
        self.deleted = self.recovered = 0
        self._set_s = math.inf

    def prepare(self) -> None:
        """Create the folder, and check that files can be created in it. Raises OSError."""
        self.path.mkdir(parents=True, exist_ok=True)
        probe = self.path / f".edge_vision_{os.getpid()}"
        try:
            with probe.open("wb"):
                pass
        finally:
            probe.unlink(missing_ok=True)
        self.check_space()

    def check_space(self) -> None:
        """Raise OSError if the disk has little space left."""
        disk = os.statvfs(self.path)
        free = disk.f_bavail * disk.f_frsize
        if free < MIN_FREE_BYTES:
            raise OSError(errno.ENOSPC, f"expected {MIN_FREE_BYTES / 1e6:.0f} MB free, got {free / 1e6:.0f}")

    def new_path(self, trigger: str, now_s: float) -> Path:
        """The path of a new recording. trigger: what started it. now_s: the wall clock."""
        at = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now_s)) + f".{int(now_s % 1 * 1000):03d}Z"
        return self.path / f"edge_vision_{self._camera}_{at}_{trigger}.mcap"

    def recover(self) -> list[Path]:
        """Complete what processes that were killed have left. Returns the files. Raises OSError."""
        parts = [one for one in self.path.iterdir() if _is_ours(one, PART)]
        found = []
        for part in sorted(parts):
            with suppress(*_OF_OTHERS):
                if path := recover(part):
                    found.append(path)
        self.recovered += len(found)
        return found

    def recordings(
        self, now_s: float = math.inf, last: Path | None = None
    ) -> list[tuple[Path, os.stat_result]]:
        """The recordings in this folder, the oldest first. Other files do not count.

        now_s: of the wall clock. Files of a time to come are the oldest: the clock has been set back since.
        last: the one that was written last, whatever the clock was.
        """
        found = []
        for path in self.path.iterdir():
            with suppress(*_OF_OTHERS):
                if _is_ours(path) and _has_our_header(path):
                    found.append((path, path.stat()))
        return sorted(
            found, key=lambda one: (one[0] == last, one[1].st_mtime <= now_s + 1.0, one[1].st_mtime_ns)
        )

    def retain(self, retention: Retention, now_s: float, last: Path | None = None) -> list[Path]:
        """Delete recordings that are too old, and the oldest ones beyond the size; never the newest, nor a
        file that is not ours. now_s, last: see `recordings`. Returns what it deleted. Raises OSError.

        A recording is too old if the wall clock says so, and also the wall clock of the first call, continued
        evenly: a clock that is set forward makes nothing older.
        """
        recordings = self.recordings(now_s, last)
        total = sum(stat.st_size for _, stat in recordings)
        deleted, own_s = [], self._own_clock_s(now_s)
        for path, stat in recordings[:-1]:
            dated = retention.max_age_days and stat.st_mtime >= CLOCK_SET_S
            old = dated and own_s - stat.st_mtime > retention.max_age_days * DAY_S
            if old or total > retention.max_total_bytes:
                path.unlink(missing_ok=True)
                total -= stat.st_size
                deleted.append(path)
        self.deleted += len(deleted)
        return deleted

    def _own_clock_s(self, now_s: float) -> float:
        """The wall clock, or the time of the first call plus the time since then if that is earlier."""
        steady_s = time.clock_gettime(_STEADY)
        if math.isinf(self._set_s) and now_s >= CLOCK_SET_S:
            self._set_s = now_s - steady_s
        return min(now_s, self._set_s + steady_s)


def _is_ours(path: Path, suffix: str = "") -> bool:
    """Whether this is the name of a recording, and a regular file."""
    name = path.name
    known = name.endswith(suffix) and _OURS.fullmatch(name.removesuffix(suffix))
    return bool(known) and path.is_file() and not path.is_symlink()


def _has_our_header(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return head.startswith(MAGIC) and LIBRARY.encode() in head
