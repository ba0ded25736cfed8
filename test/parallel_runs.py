"""Distribution of tests to processes by pytest-xdist: by file, slow files first, all that measure in one."""

from __future__ import annotations

import os
from collections.abc import Iterable

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

MOST_WORKERS = 8
MEASURING = ("test_bench.py", "test_auto_select.py", "test_optimize_run.py", "test_optimize_study.py")
"""Files with tests that measure runtimes, which parallel tests would distort."""
EVALUATING = (
    "test_evaluate_cascade_command.py",
    "test_evaluate_gate_command.py",
    "test_evaluate_installed.py",
    "test_evaluate_schedule.py",
)
"""Files with evaluations of the same clips, whose reference is cached for one process."""

SLOW = (
    "test_causes_node.py",
    "test_doctor_install.py",
    "test_fit_cascade.py",
    "test_fuzz_messages.py",
    "test_hostile_messages.py",
    "test_import_bad_input.py",
    "test_import_guesses.py",
    "test_logging.py",
    "test_optimize_device.py",
    "test_optimize_device_studies.py",
    "test_optimize_gptq.py",
    "test_optimize_ground_truth.py",
    "test_optimize_quantization.py",
    "test_run_bag.py",
    "test_trial.py",
    "test_updater.py",
    "test_updater_parameters.py",
    "test_updater_shadow.py",
)
"""Files that take longest, with few tests for their time, beside those of test/e2e."""


def workers() -> int:
    """The number of available processors plus one, since tests of nodes mostly wait."""
    return min(len(os.sched_getaffinity(0)) + 1, MOST_WORKERS)


def scope_of(nodeid: str) -> str:
    """The group of tests that runs in one process: a file, or files that belong together."""
    file = nodeid.split("::")[0]
    return "measuring" if file.endswith(MEASURING) else "evaluating" if file.endswith(EVALUATING) else file


def waits(scope: str) -> bool:
    """Whether tests of a group mostly wait for other processes, and leave the processor to others."""
    return "/" in scope and "/unit/" not in scope


def rank_of(scope: str, waiting_first: bool) -> tuple[bool, int]:
    """Groups start in this order: slow ones first, so that short ones are left for the end and all processes
    finish together."""
    slow = 0 if "/" not in scope else 1 if "/e2e/" in scope or scope.endswith(SLOW) else 2
    return waits(scope) is not waiting_first, slow


def next_group(groups: Iterable[str], n_waiting: int, n_processes: int) -> str:
    """The group that the next free process runs, where n_waiting of the processes run groups that wait.

    Two of three processes wait while the third computes: together they use all processors all the time.
    """
    waiting_first = 3 * n_waiting < 2 * n_processes
    return min(groups, key=lambda group: rank_of(group, waiting_first))


class FileScheduling(LoadFileScheduling):
    """Runs the tests of one group in one process, in their order."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        # xdist itself starts with the files that have the most tests, which are not the slow ones.
        n_waiting = sum(self._waits(other) for other in self.nodes if other is not node)
        self.workqueue.move_to_end(next_group(self.workqueue, n_waiting, len(self.nodes)), last=False)
        super()._assign_work_unit(node)

    def _waits(self, node: WorkerController) -> bool:
        units = self.assigned_work[node].items()
        return any(waits(scope) and not all(unit.values()) for scope, unit in units)
