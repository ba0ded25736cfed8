"""Fixtures of the unit tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ssh_cases import Loopback


@pytest.fixture
def trials_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every graph counts as tried: files and graphs are read in this process, without a child process."""
    from edge_vision.backends.trial import record

    monkeypatch.setattr(record, "passed", lambda key: True)


@pytest.fixture(scope="module")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    """A machine with one CPU: the highest that this one may use."""
    from ssh_cases import loopback

    prefix = ("taskset", "-c", str(max(os.sched_getaffinity(0)))) if shutil.which("taskset") else ()
    with loopback(tmp_path_factory.mktemp("robot"), *prefix) as running:
        yield running


@pytest.fixture
def device_host(ssh_server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """The machine, reached by the name HOST. Its cache has nothing but the package."""
    from device_cases import sha256

    from edge_vision.optimize.remote.package import package_zip

    monkeypatch.setenv("PATH", f"{ssh_server.bin}:{os.environ['PATH']}")
    ssh_server.wait_for_no_process()
    for name in ("blobs", "partial", "results"):
        for file in (ssh_server.cache / name).glob("*"):
            if file.name != sha256(package_zip()):
                file.unlink()
    return ssh_server


@pytest.fixture
def study_folder(tmp_path: Path) -> Path:
    """A study's folder with a bundle and images."""
    from optimize_cases import image_folder, tiny_bundle, tiny_graph

    for name in ("trials", "predictions"):
        (tmp_path / name).mkdir()
    tiny_bundle(tmp_path / "source", tiny_graph(tmp_path / "tiny.onnx"))
    image_folder(tmp_path / "images", 8)
    return tmp_path
