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


def robot(folder: Path, reports: str = "", answer: str = "success=True") -> Run:
    """Runs a script on a robot whose `ros2` notes its arguments, runs these lines, and prints the answer."""
    tool = folder / "bin" / "ros2"
    tool.parent.mkdir(exist_ok=True)
    response = f"response:\nstd_srvs.srv.Trigger_Response({answer}, message='x')"
    tool.write_text(f'#!/bin/sh\necho "$3" >> {folder}/calls\n{reports}\necho "{response}"\n')
    tool.chmod(0o755)
    env = {**os.environ, "PATH": f"{tool.parent}:{os.environ['PATH']}"}
    env |= {
        "EDGE_VISION_FOLDER": str(folder / "var"),
        "EDGE_VISION_LIMIT_S": "3",
        "EDGE_VISION_ROLLBACK_S": "1",
    }

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
    # After the last one, the report stays.
    source = f"{folder}/report$(wc -l < {folder}/calls)/robot.json"
    return f"if [ -f {source} ]; then cat {source} > {folder}/var/reports/robot.json; fi"


def deploy(run: Run, payload: Path, failing: str = "") -> list[str]:
    """What a Mender client does with a module of protocol v3, up to the Cleanup. failing: a state after which
    another module, or a state script, fails. Returns the states that ran, a failed one with "!"."""
    states: list[str] = []

    def state(name: str) -> bool:
        done = run("edge-vision", name, str(payload))
        states.append(name if done.returncode == 0 else f"{name}!")
        assert done.returncode == 0 or "edge-vision: expected " in done.stderr or name == "ArtifactInstall"
        return done.returncode == 0 and name != failing

    def query(name: str, *arguments: str) -> str:
        done = run("edge-vision", name, *arguments)
        assert done.returncode == 0 and done.stdout.count("\n") <= 1, "Mender refuses more than a line"
        return done.stdout.strip()

    assert query("ProvidePayloadFileSizes", str(payload)) in ("", "No")
    good = state("Download") and state("ArtifactInstall")
    if good:
        assert query("NeedsArtifactReboot", str(payload)) == "No"
        good = state("ArtifactCommit")
    if not good:
        assert query("SupportsRollback", str(payload)) == "Yes"
        state("ArtifactRollback")
        state("ArtifactFailure")
    state("Cleanup")
    return states


INSTALLED = ["Download", "ArtifactInstall", "ArtifactCommit", "Cleanup"]
FAILED = ["Download", "ArtifactInstall!", "ArtifactRollback", "ArtifactFailure", "Cleanup"]


@pytest.mark.parametrize(
    ("outcomes", "called", "states"),
    [
        (("downloaded", "committed"), ["check", "promote"], INSTALLED),
        (("committed",), ["check"], INSTALLED),
        (("downloaded", "rolled_back"), ["check", "promote"], FAILED),
        (("refused",), ["check"], FAILED),
        (("downloaded", "promoted", "rolled_back"), ["check", "promote", "rollback"], FAILED),
    ],
    ids=["committed", "serves already", "rolled back", "refused", "still on probation at the limit"],
)
def test_a_mender_deployment_ends_as_the_probation_does(tmp_path, payload, outcomes, called, states) -> None:
    run = robot(tmp_path, prepared(tmp_path, *outcomes))
    assert deploy(run, payload) == states
    assert calls(tmp_path) == [f"/updater/{name}" for name in called]
    assert (tmp_path / "var" / "repository" / "metadata" / "timestamp.json").exists()
    assert sorted(path.name for path in (tmp_path / "var").iterdir()) == ["reports", "repository"]


def test_a_failure_after_the_commit_rolls_back_what_the_deployment_promoted(tmp_path, payload) -> None:
    failed = [*INSTALLED[:3], *FAILED[2:]]
    run = robot(tmp_path, prepared(tmp_path, "downloaded", "committed", "rolled_back"))
    assert deploy(run, payload, failing="ArtifactCommit") == failed
    assert calls(tmp_path)[2:] == ["/updater/rollback"]
    # The next one brings what serves already: its failure must not take that back.
    (tmp_path / "calls").unlink()
    run = robot(tmp_path, prepared(tmp_path, "committed"))
    assert deploy(run, payload, failing="ArtifactCommit") == failed
    assert calls(tmp_path) == ["/updater/check"]


def test_a_damaged_payload_leaves_the_repository_and_the_model(tmp_path, payload) -> None:
    deploy(robot(tmp_path, prepared(tmp_path, "downloaded", "committed")), payload)
    (tmp_path / "calls").unlink()
    (payload / "files" / "repository.tar").write_text("<html>")
    assert deploy(robot(tmp_path), payload) == FAILED
    assert (tmp_path / "var" / "repository" / "metadata").is_dir() and not (tmp_path / "calls").exists()


def test_an_updater_that_refuses_fails_the_deployment_at_once(tmp_path: Path, payload: Path) -> None:
    run = robot(tmp_path, answer="success=False")
    assert deploy(run, payload) == FAILED
    assert calls(tmp_path) == ["/updater/check"]


def test_a_rollback_is_attempted_again_and_its_failure_reported(tmp_path: Path, payload: Path) -> None:
    """A power cut interrupts the installation: the updater may not run yet."""
    report = tmp_path / "var" / "reports" / "robot.json"
    run = robot(tmp_path, prepared(tmp_path, "downloaded", "promoted"))
    assert run("edge-vision", "ArtifactInstall", str(payload)).returncode == 1
    assert '"outcome": "promoted"' in report.read_text()
    (tmp_path / "calls").unlink()
    done = robot(tmp_path, answer="success=False")("edge-vision", "ArtifactRollback", str(payload))
    assert done.returncode == 1 and "expected /updater/rollback to succeed, got: " in done.stderr
    too_early = len(calls(tmp_path))
    assert robot(tmp_path)("edge-vision", "ArtifactRollback", str(payload)).returncode == 0
    assert robot(tmp_path)("edge-vision", "ArtifactRollback", str(payload)).returncode == 0
    assert too_early and len(calls(tmp_path)) == too_early + 1, "none for what is rolled back already"


def test_only_reports_of_the_same_detector_count(tmp_path, payload, monkeypatch) -> None:
    monkeypatch.setenv("EDGE_VISION_UPDATER", "/front/updater")
    lines = prepared(tmp_path, "downloaded", "committed")
    lines = lines.replace("/reports/robot.json", "/reports/robot.front.json")
    assert deploy(robot(tmp_path, lines), payload) == INSTALLED
    (tmp_path / "calls").unlink()
    monkeypatch.delenv("EDGE_VISION_UPDATER")
    assert deploy(robot(tmp_path, lines), payload) == FAILED


@pytest.mark.parametrize("state", ["NeedsArtifactReboot", "SupportsRollback", "ListSupportedOriginalTypes"])
def test_a_query_without_the_folder_is_answered(tmp_path: Path, state: str) -> None:
    answers = {"NeedsArtifactReboot": "No\n", "SupportsRollback": "Yes\n"}
    done = robot(tmp_path)("edge-vision", state)
    assert (done.returncode, done.stdout) == (0, answers.get(state, ""))


def mender(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the Mender client in mounts of its own, as its folders under /usr/share and /etc are fixed."""
    script = """set -e
    mount -t tmpfs none /usr/share/mender && mount -t tmpfs none /etc/mender
    mkdir -p /usr/share/mender/modules/v3 && cp "$1" /usr/share/mender/modules/v3/
    echo artifact_name=release-1 > /etc/mender/artifact_info && echo "{}" > /etc/mender/mender.conf
    shift && exec mender --no-syslog --data "$@" """
    module = str(SCRIPTS / "edge-vision")
    command = ["unshare", "-rm", "sh", "-c", script, "sh", module, str(folder / "data"), *arguments]
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "EDGE_VISION_FOLDER": str(folder / "var"), "EDGE_VISION_LIMIT_S": "3"}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)


@pytest.mark.skipif(
    not (shutil.which("mender") and shutil.which("mender-artifact")),
    reason="the packages mender-client and mender-artifact are not installed",
)
@pytest.mark.parametrize(
    ("outcomes", "then", "called", "name"),
    [
        (("downloaded", "committed"), "commit", ["check", "promote"], "release-2"),
        (
            ("downloaded", "committed", "rolled_back"),
            "rollback",
            ["check", "promote", "rollback"],
            "release-1",
        ),
        (("downloaded", "rolled_back"), "", ["check", "promote"], "release-1"),
    ],
    ids=["committed", "rolled back by the user", "rolled back by the updater"],
)
def test_the_real_mender_client_installs_and_rolls_back(
    tmp_path, payload, outcomes, then, called, name
) -> None:
    robot(tmp_path, prepared(tmp_path, *outcomes))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "device_type").write_text("device_type=robot\n")
    artifact, tar = tmp_path / "update.mender", payload / "files" / "repository.tar"
    kind = ["-T", "edge-vision", "-t", "robot", "-n", "release-2"]
    write = ["mender-artifact", "write", "module-image", *kind, "-f", str(tar), "-o", str(artifact)]
    subprocess.run(write, check=True)
    done = mender(tmp_path, "install", str(artifact))
    assert done.returncode == (0 if then else 1), done.stderr
    if then:
        assert mender(tmp_path, then).returncode == 0
    else:
        assert "expected committed, got rolled_back" in done.stderr
    assert calls(tmp_path) == [f"/updater/{call}" for call in called]
    assert mender(tmp_path, "show-artifact").stdout.strip() == name


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
