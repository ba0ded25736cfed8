"""Processes that run tests at the same time share neither a ROS domain nor a cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
TEST = """\
import os, time
from pathlib import Path

def test_it(domain):
    name = f"{{os.environ['PYTEST_XDIST_WORKER']}} {{os.environ['EDGE_VISION_CACHE']}} {{SESSION}} {{domain}}"
    Path({folder!r}, "{number}.txt").write_text(name)
    until_s = time.monotonic() + 60
    while len(list(Path({folder!r}).glob("*.txt"))) < 2 and time.monotonic() < until_s:
        time.sleep(0.01)  # Both tests run at the same time.

SESSION = os.environ["ROS_DOMAIN_ID"]
"""


@pytest.fixture
def two_files(tmp_path: Path):
    """Two test files that run side by side, below test/ for its conftest."""
    files = [REPO / "test" / "unit" / f"test_beside_{os.getpid()}_{n}.py" for n in range(2)]
    for number, file in enumerate(files):
        file.write_text(TEST.format(folder=str(tmp_path), number=number))
    yield files
    for file in files:
        file.unlink()


def test_workers_share_neither_domain_nor_cache(two_files: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-n",
        "2",
        "--dist",
        "loadfile",
    ]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run(
        [*command, *map(str, two_files)], cwd=REPO, env=env, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stdout
    found = [file.read_text().split() for file in tmp_path.glob("*.txt")]
    workers, caches, sessions, domains = zip(*found, strict=True)
    assert len(set(workers)) == len(set(caches)) == 2
    assert len({*sessions, *domains}) == 4
    assert os.environ["EDGE_VISION_CACHE"] not in caches and os.environ["ROS_DOMAIN_ID"] not in sessions


def test_one_of_three_processes_computes_and_slow_groups_start_first() -> None:
    pytest.importorskip("xdist")
    from parallel_runs import next_group

    groups = [f"test/{name}.py" for name in ("unit/test_nms", "unit/test_trial", "nodes/test_names")]
    groups += ["measuring", "test/nodes/test_updater.py"]
    taken = []
    for n_waiting in (0, 1, 2, 2, 2):
        taken.append(next_group(groups, n_waiting, 3))
        groups.remove(taken[-1])
    assert taken == [
        "test/nodes/test_updater.py",
        "test/nodes/test_names.py",
        "measuring",
        "test/unit/test_trial.py",
        "test/unit/test_nms.py",
    ]
    assert next_group(["test/unit/test_nms.py"], 0, 3) == "test/unit/test_nms.py"


def test_files_that_belong_together_run_in_one_process() -> None:
    pytest.importorskip("xdist")
    from parallel_runs import scope_of

    choice, study, gate, nms = (
        scope_of(f"test/unit/test_{name}.py::test_it[1::2]")
        for name in ("auto_select", "optimize_study", "gate", "nms")
    )
    assert choice == study != gate != nms
    assert scope_of("test/unit/test_evaluate_installed.py::test_it") == "evaluating"
