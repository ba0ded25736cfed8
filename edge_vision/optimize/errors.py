"""Errors of the optimizer, in addition to the package's own."""

from __future__ import annotations

import errno

from edge_vision.errors import EdgeVisionError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class OptimizeError(EdgeVisionError):
    """The request cannot be fulfilled: unsuitable clips, an unknown precision, a folder of something else."""


class DiskFull(OptimizeError):
    """No space is left for the results. Finished trials are kept."""

    def __init__(self, path: object) -> None:
        super().__init__(
            f"{path}: no space left on the disk; free some, then continue with: optimize resume DIR"
        )
