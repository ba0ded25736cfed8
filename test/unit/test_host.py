"""The number of threads that a backend takes by itself: what this process may really use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_vision.backends import host


def test_never_more_than_the_affinity_allows() -> None:
    """In a process of its own, bound to one processor."""
    one = min(os.sched_getaffinity(0))
    code = (
        f"import os, sys; sys.path[:0] = {sys.path!r}\nos.sched_setaffinity(0, {{{one}}})\n"
        "from edge_vision.backends.host import usable_cores; print(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "1"


def test_never_more_than_there_are() -> None:
    assert 1 <= host.usable_cores() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "5000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 4),
        ({"cpu.max": "rubbish"}, 4),
        ({"cpu.cfs_quota_us": "300000", "cpu.cfs_period_us": "100000"}, 3),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, 4),
        ({}, 4),
    ],
)
def test_the_containers_quota_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    """Files as the kernel writes them, for control groups of version 2 and 1; four cores."""
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(host, "_cgroup_folders", lambda: [tmp_path])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    monkeypatch.setattr(host, "_siblings", str)
    assert host.usable_cores() == expected


def test_two_hardware_threads_of_a_core_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_cgroup_folders", list)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    monkeypatch.setattr(host, "_siblings", lambda cpu: f"{cpu % 2},{cpu % 2 + 2}")
    assert host.usable_cores() == 2
