"""A test run leaves the user's cache as it was, and reads the models and clips in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from model_cases import SSD, bundle_or_skip
from run_cache import link_shared, state_of

from edge_vision.bundles.store import cache_dir

REPO = Path(__file__).resolve().parents[2]
MEASURES = "test_auto_takes_an_installed_backend_and_reports_why"


def run_tests(cache: Path, *files: Path | str) -> subprocess.CompletedProcess[str]:
    """Run tests in a process of its own, for a user with this cache."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, files)]
    env = {**os.environ, "EDGE_VISION_CACHE": str(cache)}
    return subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, timeout=250)


def test_a_measurement_is_kept_apart_from_the_users(tmp_path: Path) -> None:
    bundle_or_skip(SSD)
    link_shared(cache_dir(), tmp_path)
    before = state_of(tmp_path)
    done = run_tests(tmp_path, f"test/unit/test_backends.py::{MEASURES}")
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout
    assert state_of(tmp_path) == before and not (tmp_path / "auto_select").exists()


def test_a_run_that_changes_a_shared_file_fails(tmp_path: Path) -> None:
    clip = tmp_path / "user" / "video" / "clip.avi"
    clip.parent.mkdir(parents=True)
    clip.write_bytes(b"clip")
    test = REPO / "test" / "unit" / f"test_writes_{os.getpid()}.py"
    test.write_text(
        "from edge_vision.bundles.store import cache_dir\n"
        "def test_writes(): (cache_dir() / 'video' / 'clip.avi').write_bytes(b'other')\n"
    )
    try:
        done = run_tests(tmp_path / "user", test)
    finally:
        test.unlink()
    assert done.returncode == 1 and "1 passed" in done.stdout, done.stdout
    assert f"changed a file of the user's cache: {clip}" in done.stdout
