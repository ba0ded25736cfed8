"""Children import this package, and nothing that lies in the working folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
from model_cases import SSD, bundle_or_skip

from edge_vision.backends import BackendRequest
from edge_vision.backends.selection import auto_select
from edge_vision.backends.trial.parent import try_graph
from edge_vision.bundles.store import cache_dir
from edge_vision.cli.doctor import probe
from edge_vision.core import child_process
from edge_vision.core.child_process import child_environment, describe_exit, python_command
from edge_vision.errors import BackendError
from edge_vision.evaluate import condition_jobs
from edge_vision.evaluate.live.pipeline_process import PipelineProcess
from edge_vision.evaluate.sequences.recipes import by_name, conditions
from edge_vision.model_zoo import packages
from edge_vision.offline.process_pool import ProcessPool
from edge_vision.optimize.trials.executor import LocalExecutor, Trial
from edge_vision.optimize.trials.measure import Measurement
from edge_vision.optimize.trials.worker import WorkerProcess, WorkerSetup

ROOT = Path(child_process.__file__).parents[2]


class WhereIsNumpy:
    """A run of the evaluation that returns which numpy and which cache a worker uses."""

    quick = True

    def n_simulated(self):
        return 0

    def evaluate(self, condition, detector, on_step):
        return {"numpy": numpy.__file__, "cache": str(cache_dir())}


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A working folder whose numpy.py writes a file when it is executed; the file."""
    sprung = tmp_path / "sprung"
    code = f"open({str(sprung)!r}, 'w').close()\nraise SystemExit(9)\n"
    for name in ("numpy", "cv2", "yaml", "psutil"):
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    # As `python -m` leaves it.
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep)
    return sprung


def test_auto_select(trap):
    bundle = bundle_or_skip(SSD)
    rows = auto_select.measure_in_child(bundle, ["onnxruntime"], BackendRequest(threads=1)).rows
    assert [(row.backend, row.failure) for row in rows] == [("onnxruntime", "")] and not trap.exists()


def test_a_trial(trap, monkeypatch, tmp_path):
    from edge_vision.backends.runtimes.onnxruntime import OnnxRuntimeBackend

    bundle = bundle_or_skip(SSD)
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path / "cache"))
    try_graph(OnnxRuntimeBackend(), bundle.folder / "model.onnx", BackendRequest())
    assert not trap.exists()


def test_the_doctor(trap):
    result = probe.run_probe("modules", "numpy", "cv2")
    assert [one.get("version") for one in result.findings][1::2]
    assert not result.failure and not trap.exists()


def test_the_optimizer(trap, tmp_path):
    (tmp_path / "trials").mkdir()
    setup = WorkerSetup("/nowhere", "onnxruntime", "auto", 1, "images")
    outcome = LocalExecutor().run(Trial("unknown", "x", setup, Measurement), tmp_path, 120.0)
    assert outcome.status == "crashed" and "KeyError" in outcome.reason and not trap.exists()
    with pytest.raises(BackendError, match="/nowhere"):
        WorkerProcess("x", setup)
    assert not trap.exists()


def test_the_workers_of_the_evaluation(trap):
    bundle_or_skip(SSD)
    found = []
    name = conditions()[0].name
    work = [(by_name(name), condition_jobs.Task(name, None, WhereIsNumpy(), {}))]
    assert condition_jobs.evaluate_all(work, ProcessPool(1), lambda name, result: found.append(result))
    assert found == [{"numpy": numpy.__file__, "cache": str(cache_dir())}] and not trap.exists()
    assert sys.path[0] == str(trap.parent), "and this process keeps its own path"


def test_the_demo(trap, tmp_path):
    process = PipelineProcess(["--help"], tmp_path / "log")
    process._child.wait(60)
    assert "--source" in (tmp_path / "log").read_text() and not trap.exists()


def test_pip(trap):
    start = python_command("pip", "download")
    assert packages._pip(packages.NODEJS)[: len(start)] == start
    done = subprocess.run(python_command("pip", "--version"), env=child_environment(), capture_output=True)
    assert done.stdout.startswith(b"pip ") and not trap.exists()


def test_a_python_without_safe_path(trap, monkeypatch):
    """Python 3.10 knows neither the option nor the variable."""
    old = SimpleNamespace(version_info=(3, 10), executable=sys.executable)
    monkeypatch.setattr(child_process, "sys", old)
    command = python_command("edge_vision.cli.doctor.probe", "modules", "numpy")
    monkeypatch.undo()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=trap.parent, env=environment, capture_output=True, text=True)
    assert "-P" not in command and '"version"' in done.stdout and not trap.exists(), done.stderr


def test_the_environment_of_a_child(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(("", "plugins", "/opt/plugins")))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    environment = child_environment()
    assert "_ROS_WHEELS_BOOTSTRAP_COMPLETE" not in environment
    assert environment["PYTHONSAFEPATH"] == environment["ORT_DISABLE_TELEMETRY"] == "1"
    expected = [str(ROOT), str(tmp_path / "plugins"), "/opt/plugins"]
    assert environment["PYTHONPATH"].split(os.pathsep) == expected
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    assert child_environment()["ORT_DISABLE_TELEMETRY"] == "0", "the user's own setting counts"


def test_how_a_child_ended():
    assert [describe_exit(code) for code in (3, -6, -99)] == [
        "exited with status 3",
        "was killed by SIGABRT",
        "was killed by signal 99",
    ]
