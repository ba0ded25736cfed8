"""Distribution of tests to processes by pytest-xdist: by file; all tests that measure in one process."""

from __future__ import annotations

import os

from xdist.scheduler import LoadFileScheduling

MOST_WORKERS = 8
MEASURING = ("test_bench.py", "test_auto_select.py", "test_optimize_run.py", "test_optimize_study.py")
"""Files with tests that measure runtimes, which parallel tests would distort."""


def workers() -> int:
    """The number of available processors plus one, since tests of nodes mostly wait."""
    return min(len(os.sched_getaffinity(0)) + 1, MOST_WORKERS)


def scope_of(nodeid: str) -> str:
    """The group of tests that runs in one process: a file, or all files that measure."""
    file = nodeid.split("::")[0]
    return "measuring" if file.endswith(MEASURING) else file


class FileScheduling(LoadFileScheduling):
    """Runs the tests of one group in one process, in their order."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)
