"""Shared memory of killed processes is removed, that of living ones is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from edge_vision.nodes.transport.shared_memory import remove_abandoned_segments

OWNER = """
import fcntl, sys
lock = open(sys.argv[1])
fcntl.flock(lock, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


def segment(folder: Path, name: str, age_s: float = 60.0) -> Path:
    """A segment with its lock file, this old."""
    for file in (folder / name, folder / f"{name}_el"):
        file.write_bytes(b"")
        os.utime(file, (time.time() - age_s,) * 2)
    return folder / f"{name}_el"


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_segment_is_removed_once_its_owner_was_killed(tmp_path: Path) -> None:
    lock = segment(tmp_path, "fastrtps_0123456789abcdef")
    command = [sys.executable, "-c", OWNER, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout and owner.stdout.readline() == b"locked\n"
        remove_abandoned_segments(tmp_path)
        assert len(names(tmp_path)) == 2
        owner.kill()
    remove_abandoned_segments(tmp_path)
    assert names(tmp_path) == []


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    segment(tmp_path, "fastrtps_0123456789abcdef", age_s=0.0)
    segment(tmp_path, "fastrtps_port7411")
    segment(tmp_path, "another_0123456789abcdef")
    before = names(tmp_path)
    remove_abandoned_segments(tmp_path)
    remove_abandoned_segments(tmp_path / "none")
    assert names(tmp_path) == before
