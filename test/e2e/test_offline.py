"""The pipeline makes no network request, and writes only to the documented folders."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from executable_cases import ROOT, Executable
from model_cases import DETECTOR, OIDV4, bundle_or_skip, clip_or_skip

from edge_vision.backends import available_backends

NAMESPACE = ["unshare", "--map-root-user", "--net", "--mount"]
QUARANTINE = [*NAMESPACE, sys.executable, str(Path(__file__).with_name("quarantine.py"))]
BACKENDS = [name for name, reason in available_backends().items() if reason is None]
# ONNX Runtime's telemetry sends 12 s after the import, OpenVINO's during it.
SECONDS = {"onnxruntime": "16"}


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, domain: int) -> Path:
    """An empty home and temporary folder, a cache with two bundles, a clip. Skips without namespaces."""
    try:
        done = subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True)
    except FileNotFoundError as error:
        pytest.skip(f"no network namespace: {error}")
    if done.returncode:
        pytest.skip(f"no network namespace is permitted here: {done.stderr.strip()}")
    for name in ("home", "tmp", "work", "cache/bundles"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(clip_or_skip("bikes.mp4"), tmp_path / "clip.mp4")
    for name in (DETECTOR, OIDV4):
        shutil.copytree(bundle_or_skip(name).folder, tmp_path / "cache" / "bundles" / name)
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "ROS_HOME", "ROS_LOG_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("ORT_DISABLE_TELEMETRY", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path / "cache"))
    return tmp_path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
def test_no_request_and_no_stray_file(folders: Path, backend: str) -> None:
    clip, record = str(folders / "clip.mp4"), folders / "record"
    before = files(folders)
    pipeline = [*Executable.COMMAND, "pipeline", "--source", clip, "--loop", "--backend", backend]
    pipeline += ["--model", OIDV4 if backend == "litert" else DETECTOR]
    seconds = SECONDS.get(backend, "2")
    command = [*QUARANTINE, str(record), "[source]: active", seconds, *pipeline]
    done = subprocess.run(command, cwd=folders / "work", capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert backend == "auto" or f" on {backend} " in done.stdout, done.stdout
    assert record.read_text() == ""
    made = files(folders) - before - {"record"}
    documented = ("home/.ros/log/", "cache/auto_select/", "cache/trials")
    assert [name for name in sorted(made) if not name.startswith(documented)] == []


def test_the_quarantine_records_requests(folders: Path) -> None:
    code = (
        "import socket, urllib.request as r\n"
        "try: socket.gethostbyname('name.example')\n"
        "except OSError: pass\n"
        "try: r.urlopen('http://proxied.example/')\n"
        "except OSError: pass\n"
        "print('ready', flush=True)"
    )
    record = folders / "record"
    subprocess.run([*QUARANTINE, str(record), "ready", "60", sys.executable, "-c", code], timeout=60)
    assert "proxied.example" in record.read_text() and "name\\x07example" in record.read_text()
