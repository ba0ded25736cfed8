"""Engines on disk: the right one is opened, no other one ever is. Real files, real processes, real limits."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edge_vision.backends.runtimes.engine_cache import EngineCache, EngineKey
from edge_vision.errors import BackendError, EngineRefused

KEY = EngineKey("ab" * 32, "tensorrt", "10.3", "Orin sm_87", "540.4", "fp16")
ENGINE = b"engine" * 1000


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def never() -> bytes:
    raise AssertionError("built although one is kept")


def test_what_was_built_is_kept_and_found_again(cache):
    kept = cache.get(KEY, lambda: ENGINE)
    assert (kept.engine, kept.built, kept.note) == (ENGINE, True, "")
    again = cache.get(KEY, never)
    assert (again.engine, again.built) == (ENGINE, False)
    assert EngineCache(cache.folder).find(KEY) == ENGINE
    side = json.loads((cache.folder / f"{KEY.name}.json").read_text())
    assert side["key"]["driver"] == "540.4" and side["bytes"] == len(ENGINE)


def test_rebuild_replaces_it(cache):
    cache.get(KEY, lambda: ENGINE)
    assert cache.get(KEY, lambda: b"new", rebuild=True).built
    assert cache.find(KEY) == b"new"


@pytest.mark.parametrize(
    ("field", "value"),
    [("graph_sha256", "cd" * 32), ("device", "H100 sm_90"), ("precision", "fp32"), ("settings", "x")],
)
def test_another_graph_device_precision_or_setting_has_its_own_engine(cache, field, value):
    cache.get(KEY, lambda: ENGINE)
    other = replace(KEY, **{field: value})
    assert cache.find(other) is None
    assert cache.get(other, lambda: b"other").engine == b"other"
    assert cache.find(KEY) == ENGINE


@pytest.mark.parametrize(("field", "value"), [("version", "10.4"), ("driver", "550.1")])
def test_a_stale_engine_is_refused_with_the_remedy(cache, field, value):
    cache.get(KEY, lambda: ENGINE)
    remedy = (
        r"it was not opened. Build it again: python -m edge_vision backends build BUNDLE --backend tensorrt"
    )
    with pytest.raises(EngineRefused, match=rf"was built for {field} '{getattr(KEY, field)}'.*{remedy}"):
        cache.get(replace(KEY, **{field: value}), never)


def test_a_foreign_engine_under_the_right_name_is_refused(cache):
    """Copied from another machine, and renamed until it fits."""
    other = replace(KEY, device="H100 sm_90")
    cache.put(other, ENGINE)
    for suffix in ("engine", "json"):
        (cache.folder / f"{other.name}.{suffix}").rename(cache.folder / f"{KEY.name}.{suffix}")
    with pytest.raises(EngineRefused, match="was built for device 'H100 sm_90', here it is 'Orin sm_87'"):
        cache.get(KEY, never)


@pytest.mark.parametrize("at", [0, 3000, len(ENGINE) - 1])
def test_a_poisoned_engine_is_refused(cache, at):
    cache.put(KEY, ENGINE)
    path = cache.folder / f"{KEY.name}.engine"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(EngineRefused, match="is not the one that was built"):
        cache.get(KEY, never)
    assert cache.get(KEY, lambda: ENGINE, rebuild=True).built
    assert cache.find(KEY) == ENGINE


@pytest.mark.parametrize(
    "content", ["", "[]", '{"key": 1}', '{"key": {}}', "[" * 10000, "\xff", "x" * 100_000]
)
def test_a_broken_side_file_is_refused(cache, content):
    cache.put(KEY, ENGINE)
    (cache.folder / f"{KEY.name}.json").write_text(content, "latin-1")
    with pytest.raises(EngineRefused, match="it was not opened"):
        cache.get(KEY, never)


def test_an_engine_without_its_side_file_is_none(cache):
    """What a builder leaves that was stopped between the two files."""
    cache.put(KEY, ENGINE)
    (cache.folder / f"{KEY.name}.json").unlink()
    assert cache.find(KEY) is None
    assert cache.get(KEY, lambda: b"built again").built


def test_a_folder_that_others_may_write_to_is_refused(cache):
    cache.put(KEY, ENGINE)
    cache.folder.chmod(0o777)
    with pytest.raises(EngineRefused, match="chmod go-w"):
        cache.get(KEY, never)


def test_a_builder_that_fails_leaves_nothing_and_frees_the_lock(cache):
    def fail() -> bytes:
        raise BackendError("no such layer")

    with pytest.raises(BackendError, match="no such layer"):
        cache.get(KEY, fail)
    assert cache.get(KEY, lambda: ENGINE).built


def test_a_place_that_cannot_be_a_folder_costs_only_the_keeping(tmp_path):
    (tmp_path / "file").write_text("")
    kept = EngineCache(tmp_path / "file" / "engines").get(KEY, lambda: ENGINE)
    assert kept.engine == ENGINE and kept.built
    assert "could not be kept" in kept.note and "EDGE_VISION_CACHE" in kept.note


_FULL_DISK = """
import resource, sys
from pathlib import Path
from edge_vision.backends.runtimes.engine_cache import EngineCache
from test_engine_cache import ENGINE, KEY
# The kernel refuses to let a file grow beyond this, as it does on a full disk.
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
kept = EngineCache(Path(sys.argv[1])).get(KEY, lambda: ENGINE)
assert kept.engine == ENGINE and kept.built and "could not be kept" in kept.note, kept
print(kept.note)
"""


def test_a_full_disk_costs_only_the_keeping(cache):
    done = run(_FULL_DISK, cache.folder)
    assert done.returncode == 0, done.stderr
    assert not list(cache.folder.glob("*.engine")) and not list(cache.folder.glob(".writing-*"))
    assert EngineCache(cache.folder).get(KEY, lambda: ENGINE).note == ""


_BUILDER = """
import sys, time
from pathlib import Path
from edge_vision.backends.runtimes.engine_cache import EngineCache
from test_engine_cache import KEY

def build():
    with open(sys.argv[2], "a") as file:
        file.write("built\\n")
    lock = f":{next(Path(sys.argv[1]).glob('*.lock')).stat().st_ino} "
    while sum("->" in line and lock in line for line in Path("/proc/locks").read_text().splitlines()) < 2:
        time.sleep(0.01)  # Until the two others wait.
    return b"engine"

kept = EngineCache(Path(sys.argv[1])).get(KEY, build)
print("RESULT", kept.engine, kept.built)
"""


def test_of_processes_that_want_the_same_engine_one_builds(cache, tmp_path):
    log = tmp_path / "log"
    builders = [start(_BUILDER, cache.folder, log) for _ in range(3)]
    outputs = [process.communicate(timeout=200)[0] for process in builders]
    assert [process.returncode for process in builders] == [0, 0, 0]
    assert log.read_text() == "built\n"
    assert sorted(text.split("RESULT ")[1].strip() for text in outputs) == [
        "b'engine' False",
        "b'engine' False",
        "b'engine' True",
    ]


def test_a_killed_builder_leaves_the_work_to_the_next(cache, tmp_path):
    log = tmp_path / "log"
    killed = start(_BUILDER, cache.folder, log)
    while not log.exists():
        assert killed.poll() is None
    killed.kill()
    killed.communicate()
    assert cache.get(KEY, lambda: ENGINE).built
    assert cache.find(KEY) == ENGINE


def start(code: str, *arguments: Path) -> subprocess.Popen[str]:
    here = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}\n"
    argv = [sys.executable, "-c", here + code, *map(str, arguments)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(code: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    process = start(code, *arguments)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
