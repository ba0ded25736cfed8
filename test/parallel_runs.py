"""Distribution of tests to processes by pytest-xdist: by file, slow files first, all that measure in one."""

from __future__ import annotations

import os

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

MOST_WORKERS = 8
MEASURING = ("test_bench.py", "test_auto_select.py", "test_optimize_run.py", "test_optimize_study.py")
"""Files with tests that measure runtimes, which parallel tests would distort."""


SLOW = (
    "test_import_bad_input.py",
    "test_import_guesses.py",
    "test_optimize_quantization.py",
    "test_trial.py",
)
"""Files of unit tests that take longest, with few tests for their time."""


def workers() -> int:
    """The number of available processors plus one, since tests of nodes mostly wait."""
    return min(len(os.sched_getaffinity(0)) + 1, MOST_WORKERS)


def scope_of(nodeid: str) -> str:
    """The group of tests that runs in one process: a file, or all files that measure."""
    file = nodeid.split("::")[0]
    return "measuring" if file.endswith(MEASURING) else file


def rank_of(scope: str) -> int:
    """Groups start in this order. Those that wait for other processes come before those that only compute,
    so that short ones are left for the end and all processes finish together."""
    if scope == "measuring":
        return 0
    return 1 if "/unit/" not in scope else 2 if scope.endswith(SLOW) else 3


class FileScheduling(LoadFileScheduling):
    """Runs the tests of one group in one process, in their order."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        # xdist itself starts with the files that have the most tests, which are not the slow ones.
        self.workqueue.move_to_end(min(self.workqueue, key=rank_of), last=False)
        super()._assign_work_unit(node)
