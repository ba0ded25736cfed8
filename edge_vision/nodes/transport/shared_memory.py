"""Removes the shared memory of killed processes, which Fast DDS keeps: 34 MB each with config/fastdds.xml."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path("/dev/shm")
_LOCKS = "fastrtps_" + "[0-9a-f]" * 16 + "_el"
_MIN_AGE_S = 2.0
"""Of a lock file: a process that has just created it may not have locked it yet."""


def remove_abandoned_segments(folder: Path = FOLDER) -> list[str]:
    """Remove Fast DDS's segments whose owner has ended, as `fastdds shm clean` does. Returns their names.

    An owner keeps the file NAME_el locked, and the kernel releases the lock when the process ends, however it
    ends. Segments of other users, or that cannot be removed, are left alone.
    """
    removed = []
    for lock in folder.glob(_LOCKS):
        with contextlib.suppress(OSError), _locked(lock):
            segment = lock.with_name(lock.name.removesuffix("_el"))
            segment.unlink(missing_ok=True)
            lock.unlink()
            removed.append(segment.name)
    return removed


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock an old file of this user. Raises OSError if another process has locked it."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() or time.time() - status.st_mtime < _MIN_AGE_S:
            raise OSError(f"{path} is not ours, or new")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
