"""How tests are spread over processes by pytest-xdist: by file, and those that measure in one process."""

from __future__ import annotations

import os

from xdist.scheduler import LoadFileScheduling

MOST_WORKERS = 8
MEASURING = ("test_bench.py", "test_auto_select.py", "test_optimize_run.py", "test_optimize_study.py")
"""Files with tests that measure runtimes: two at a time would measure each other."""


def workers() -> int:
    """One more than there are processors for this process, since tests of nodes mostly wait."""
    return min(len(os.sched_getaffinity(0)) + 1, MOST_WORKERS)


def scope_of(nodeid: str) -> str:
    """What runs in one process: the file of a test, or all files that measure."""
    file = nodeid.split("::")[0]
    return "measuring" if file.endswith(MEASURING) else file


class FileScheduling(LoadFileScheduling):
    """Tests of one file run in one process, in their order; so do all tests that measure."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)
