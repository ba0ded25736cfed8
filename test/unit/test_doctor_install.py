"""The doctor on this installation, and on damaged ones: a missing package, a broken model."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from model_cases import DETECTOR, bundle_or_skip

from edge_vision.cli.doctor import runtimes
from edge_vision.cli.doctor.check import ERROR, WARN, Check
from edge_vision.cli.doctor.probe import ProbeResult

REPO = Path(__file__).resolve().parents[2]
# Hides some packages from the import system.
BLOCKER = """\
import importlib.machinery, os

look = importlib.machinery.PathFinder.find_spec

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in os.environ["BLOCKED"].split(",") else look(name, path, target)

importlib.machinery.PathFinder.find_spec = staticmethod(find_spec)
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_vision", "doctor", *arguments],
        cwd=REPO,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )


def checked(*arguments: str, **environment: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and the checks by name."""
    done = run(*arguments, "--json", **environment)
    assert "Traceback" not in done.stderr, done.stderr
    document = json.loads(done.stdout)
    assert document["exit_code"] == done.returncode
    return done.returncode, {check["name"]: check for check in document["checks"]}


@pytest.fixture
def without(tmp_path):
    """Environment variables that hide packages: without("rclpy")."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    return lambda *roots: {"PYTHONPATH": str(tmp_path), "BLOCKED": ",".join(roots)}


@pytest.fixture
def store(tmp_path):
    """A store with a copy of the detector's bundle: (folder of the bundle, environment)."""
    folder = tmp_path / "cache" / "bundles" / DETECTOR
    shutil.copytree(bundle_or_skip(DETECTOR).folder, folder)
    return folder, {"EDGE_VISION_CACHE": str(tmp_path / "cache")}


def test_this_installation_is_checked(store) -> None:
    """With and without ROS."""
    folder, environment = store
    _, found = checked("--install", **environment)
    assert found["python"]["level"] == "OK" and "numpy" in found["python"]["values"]
    assert found["cpu"]["values"]["cores_logical"] >= found["cpu"]["values"]["cores_physical"] >= 1
    assert found["cache"]["values"]["path"] == str(folder.parents[1]) and found["cache"]["values"]["writable"]
    bundle = found[f"bundle {DETECTOR}"]
    assert bundle["level"] == "OK" and bundle["values"]["sha256"] == bundle_or_skip(DETECTOR).sha256
    loaded = [name for name, check in found.items() if check["values"].get("loads")]
    assert loaded and found["model"]["level"] == "OK" and found["model"]["values"]["run_ms"] > 0
    if "backend onnxruntime" in loaded:
        assert "CPUExecutionProvider" in found["backend onnxruntime"]["values"]["devices"]
    if "backend openvino" in loaded:
        assert any(one.startswith("CPU") for one in found["backend openvino"]["values"]["devices"])


def test_without_ros(without) -> None:
    code, found = checked("--running", **without("rclpy"))
    assert code == 3 and list(found) == ["graph"]
    assert found["graph"]["level"] == "UNKNOWN" and "rclpy is not installed" in found["graph"]["text"]
    assert "/opt/ros/jazzy/setup.bash" in found["graph"]["text"]
    done = run("--running", **without("rclpy"))
    assert done.returncode == 3 and "rclpy is not installed" in done.stdout


def test_without_a_package_of_messages(without) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed: source ROS 2, or run `make setup`")
    code, found = checked("--running", **without("vision_msgs"))
    assert code == 3 and "ros-$ROS_DISTRO-vision-msgs" in found["graph"]["text"]


def test_missing_packages_are_named_and_the_rest_is_checked(without, store) -> None:
    """Without rclpy and one runtime: errors, and another runtime takes over where there is one."""
    _, environment = store
    code, found = checked("--install", **without("rclpy", "onnxruntime", "psutil"), **environment)
    assert code == 2
    assert found["ros"]["level"] == "ERROR" and "rclpy is not installed" in found["ros"]["text"]
    assert found["python"]["level"] == "ERROR" and "pip install psutil" in found["python"]["text"]
    assert found["backend onnxruntime"]["values"]["loads"] is False
    assert "pip install onnxruntime" in found["backend onnxruntime"]["text"]
    assert {"cpu", "memory", f"bundle {DETECTOR}", "domain"} <= set(found)


@pytest.fixture
def section(store, monkeypatch):
    """The checks of one section in an environment, by name: section("runtimes", **environment)."""

    def checks(name: str, **environment: str) -> dict[str, Check]:
        for variable, value in {**store[1], **environment}.items():
            monkeypatch.setenv(variable, value)
        module = importlib.import_module(f"edge_vision.cli.doctor.{name}")
        return {check.name: check for check in module.checks()}

    return checks


def test_no_runtime_at_all(without, section) -> None:
    found = section("runtimes", **without("onnxruntime", "openvino", "tensorrt", "ai_edge_litert"))
    assert found["model"].level == ERROR and "pip install onnxruntime" in found["model"].text


def test_a_broken_model_and_a_missing_one(store, section) -> None:
    folder, _ = store
    graph = folder / "model_int8.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    bundle, model = section("store")[f"bundle {DETECTOR}"], section("runtimes")["model"]
    assert bundle.level == model.level == ERROR
    assert "expected sha256" in bundle.text and "expected sha256" in model.text
    shutil.rmtree(folder)
    missing = section("store")[f"bundle {DETECTOR}"]
    assert missing.level == ERROR and f"python -m edge_vision models fetch {DETECTOR}" in missing.text


def test_a_backend_that_does_not_load_is_a_warning(without, section, tmp_path) -> None:
    """A package of that name whose import fails, as one built for another processor does."""
    (tmp_path / "onnxruntime.py").write_text("import os\nos.abort()\n")
    environment = without("openvino", "tensorrt", "tensorrt_rtx", "ai_edge_litert", "executorch", "torch")
    check = section("runtimes", **environment)["backend onnxruntime"]
    assert check.level == WARN and "its process was killed by SIGABRT" in check.text
    assert check.values["loads"] is False


def test_a_backend_that_lists_no_device_is_not_reported_as_loaded(monkeypatch) -> None:
    monkeypatch.setattr(runtimes, "known_backends", lambda: {"silent": "x"})
    monkeypatch.setattr(runtimes, "run_probe", lambda *arguments: ProbeResult(({"devices": []},), ""))
    check = next(iter(runtimes.checks()))
    assert check.values["loads"] is None and "not tested" in check.text


def test_wrong_arguments_exit_with_3() -> None:
    for arguments in (["--runing"], ["--seconds", "0"], ["--install", "--running"]):
        done = run(*arguments)
        assert done.returncode == 3 and "error:" in done.stderr and done.stdout == ""


def test_help_has_examples_and_exit_codes() -> None:
    done = run("--help")
    assert done.returncode == 0 and "exit codes: 0 all OK" in done.stdout
    assert "ros2 run edge_vision doctor" in done.stdout
