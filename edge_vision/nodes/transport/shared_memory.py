"""Shared memory of killed processes, which Fast DDS keeps: 34 MB each with config/fastdds.xml."""

from __future__ import annotations

import contextlib
import fcntl
import time
from pathlib import Path

_LOCKS = "fastrtps_" + "[0-9a-f]" * 16 + "_el"
_MIN_AGE_S = 2.0
"""Of a lock file: a process that has just created it may not have locked it yet."""


def remove_abandoned_segments(folder: Path = Path("/dev/shm")) -> None:
    """Remove Fast DDS's segments whose owner has ended, as `fastdds shm clean` does.

    Those that this user may not write to are left alone. An owner keeps NAME_el locked, until it ends.
    """
    for lock in folder.glob(_LOCKS):
        with contextlib.suppress(OSError), lock.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - lock.stat().st_mtime > _MIN_AGE_S:
                lock.with_name(lock.name.removesuffix("_el")).unlink(missing_ok=True)
                lock.unlink()
