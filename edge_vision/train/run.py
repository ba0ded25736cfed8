"""Runs a recipe by its name; PyTorch is imported only then."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_vision.optimize.errors import DISK_FULL, DiskFull, OptimizeError
from edge_vision.train.recipes.run_folder import finished_report

if TYPE_CHECKING:
    from edge_vision.train.recipes.training_report import TrainingReport
    from edge_vision.train.recipes.training_request import TrainingRequest

_MODULES = {
    "qat": "recipes.qat",
    "prune": "recipes.prune_run",
    "student": "recipes.student_run",
    "search": "search.search_run",
}


def run_recipe(
    folder: Path, request: TrainingRequest, log: Callable[[str], None], show: Callable[[str], None]
) -> TrainingReport:
    """The report of a run, which continues an interrupted one; of a finished one, the stored report. PyTorch
    computes on a GPU if it has one. log, show, errors: as of TrainingRun."""
    _keep_freed_memory()
    with disk_errors(folder):
        finished = finished_report(folder, request, log)
        if finished:
            return finished
    with _device(log), disk_errors(folder):
        module = importlib.import_module(f"edge_vision.train.{_MODULES[request.recipe]}")
        report: TrainingReport = getattr(module, f"run_{request.recipe}")(folder, request, log, show)
    return report


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Raise OptimizeError for a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in (*DISK_FULL, errno.EFBIG):
            raise
        raise TrainingDiskFull(folder, error.errno) from None


class TrainingDiskFull(DiskFull):
    """No space is left, or none for a file of this size. The same command continues."""

    def __init__(self, folder: Path, number: int | None) -> None:
        reason = "no space left on the disk; free some"
        if number == errno.EFBIG:
            reason = "a file reached the size limit of this shell; raise `ulimit -f`"
        OptimizeError.__init__(
            self, f"{folder}: {reason}, or pass fewer --samples, then run the same command again"
        )


def _device(log: Callable[[str], None]) -> contextlib.AbstractContextManager[Any]:
    """Where PyTorch makes its tensors meanwhile: on a GPU, if it has one."""
    import torch

    if not torch.cuda.is_available():
        return contextlib.nullcontext()
    log(f"training on {torch.cuda.get_device_name()}")
    return torch.device("cuda")


def _keep_freed_memory() -> None:
    """Let glibc reuse the memory of large tensors; no effect elsewhere.

    By default it returns that of each to the system and gets it again, page by page: a fifth of the CPU time
    of a training.
    """
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # M_* of malloc.h
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 64 << 20)):
            mallopt(option, value)
