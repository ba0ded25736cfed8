"""What the optimizer raises beside the package's own errors."""

from __future__ import annotations

import errno

from edge_vision.errors import EdgeVisionError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class OptimizeError(EdgeVisionError):
    """What was asked for cannot be done: wrong clips, an unknown precision, a folder of something else."""


class DiskFull(OptimizeError):
    """The results have no room. What was done before is kept."""

    def __init__(self, place: object) -> None:
        super().__init__(
            f"{place}: no room left on the disk; free some, then go on with: optimize resume DIR"
        )
