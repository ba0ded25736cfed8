"""The example scripts that bring a repository to a robot by other means. A script stands for `ros2`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_vision.updates.robot_report import ReportSender, new_report

SCRIPTS = Path(__file__).resolve().parents[2] / "examples" / "transport"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def robot(folder: Path, reports: str = "") -> Run:
    """Runs a script on a robot whose `ros2` notes its arguments, then runs these lines."""
    tool = folder / "bin" / "ros2"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(f'#!/bin/sh\necho "$3" >> {folder}/calls\n{reports}\n')
    tool.chmod(0o755)
    env = {**os.environ, "PATH": f"{tool.parent}:{os.environ['PATH']}"}
    env |= {"EDGE_VISION_FOLDER": str(folder / "var"), "EDGE_VISION_LIMIT_S": "3"}

    def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(SCRIPTS / script), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)

    return run


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().split()


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    """The files of a Mender artifact."""
    repository, files = tmp_path / "operator", tmp_path / "tree" / "files"
    (repository / "metadata").mkdir(parents=True)
    (repository / "metadata" / "timestamp.json").write_text("{}")
    files.mkdir(parents=True)
    subprocess.run(["tar", "-C", repository, "-cf", files / "repository.tar", "metadata"], check=True)
    return tmp_path / "tree"


def prepared(folder: Path, *outcomes: str) -> str:
    """Lines that bring the next of these reports of an updater at each call."""
    for number, outcome in enumerate(outcomes, 1):
        sender = ReportSender(str(folder / f"report{number}"))
        values = {"group": "a", "channel": "stable", "serving": "x", "release": 1}
        sender.send(new_report("robot", "/", "why", outcome=outcome, **values))
        while sender._busy:
            pass
        assert sender.problem == ""
    return f"cat {folder}/report$(wc -l < {folder}/calls)/robot.json > {folder}/var/reports/robot.json"


@pytest.mark.parametrize(
    ("outcomes", "called", "status"),
    [
        (("downloaded", "committed"), ["check", "promote"], 0),
        (("committed",), ["check"], 0),
        (("downloaded", "rolled_back"), ["check", "promote"], 1),
        (("refused",), ["check"], 1),
        (("promoted",), ["check"], 1),
    ],
)
def test_a_mender_deployment_ends_as_the_probation_does(tmp_path, payload, outcomes, called, status) -> None:
    run = robot(tmp_path, prepared(tmp_path, *outcomes))
    done = run("edge-vision", "ArtifactInstall", str(payload))
    paths = [f"/updater/{name}" for name in called]
    assert (done.returncode, calls(tmp_path)) == (status, paths), done.stderr
    assert (tmp_path / "var" / "repository" / "metadata" / "timestamp.json").exists()
    assert status == 0 or "edge-vision: expected " in done.stderr
    run = robot(tmp_path)
    assert run("edge-vision", "ArtifactRollback", str(payload)).returncode == 0
    assert calls(tmp_path)[len(called) :] == (["/updater/rollback"] if status == 0 else [])
    assert run("edge-vision", "Cleanup", str(payload)).returncode == 0
    assert sorted(path.name for path in (tmp_path / "var").iterdir()) == ["began", "reports", "repository"]


def test_a_damaged_payload_leaves_the_repository(tmp_path: Path, payload: Path) -> None:
    (tmp_path / "var" / "repository").mkdir(parents=True)
    (payload / "files" / "repository.tar").write_text("<html>")
    run = robot(tmp_path)
    assert run("edge-vision", "ArtifactInstall", str(payload)).returncode != 0
    assert (tmp_path / "var" / "repository").is_dir() and not (tmp_path / "calls").exists()


def test_the_module_answers_what_it_supports(tmp_path: Path) -> None:
    run = robot(tmp_path)
    assert run("edge-vision", "NeedsArtifactReboot", "x").stdout == "No\n"
    assert run("edge-vision", "SupportsRollback", "x").stdout == "Yes\n"
    done = run("edge-vision", "ArtifactCommit", "x")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is not installed")
def test_the_mirror_copies_all_and_checks(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "metadata").mkdir(parents=True)
    (source / "metadata" / "timestamp.json").write_text("{}")
    (source / "metadata" / "1.root.json").write_text("{}")
    (source / ".lock").write_text("")
    done = robot(tmp_path)("mirror.sh", str(source), str(target), "/front/updater")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in target.rglob("*")) == ["1.root.json", "metadata", "timestamp.json"]
    assert calls(tmp_path) == ["/front/updater/check"]
    done = robot(tmp_path)("mirror.sh", str(tmp_path / "gone"), str(target))
    assert done.returncode != 0 and len(calls(tmp_path)) == 1
