"""Trials on another machine: a real SSH server on 127.0.0.1 with another CPU affinity is the device."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from device_cases import DEVICE, OnDevice, inodes, measurement, script, sha256
from ssh_cases import HOST, Loopback

from edge_vision.bundles.store import load_bundle
from edge_vision.optimize.candidate import Candidate, Size
from edge_vision.optimize.data.dataset import Dataset
from edge_vision.optimize.device import OptimizedDevice, this_device
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization.variants import Variants
from edge_vision.optimize.remote import session
from edge_vision.optimize.remote.package import package_zip
from edge_vision.optimize.runtimes import selected_backends
from edge_vision.optimize.trials.executor import LocalExecutor, Result, Trial, TrialExecutor, TrialOutcome
from edge_vision.optimize.trials.runner import TrialRunner

pytestmark = pytest.mark.timeout(300)


def test_the_device_states_its_own_processor_and_runtimes(device_host: Loopback) -> None:
    with OnDevice() as device:
        assert (device.found.address, device.found.cores) == (DEVICE, 1)
        assert device.found.flags == this_device().flags
        assert "onnxruntime" in device.found.backends and device.found.architecture


class Recipes(TrialExecutor):
    """Records the int8 recipes of variants."""

    def run(self, trial: Trial[Result], folder: Path, timeout_s: float) -> TrialOutcome[Result]:
        self.reduced = trial.task.recipe.reduce_range
        return TrialOutcome("failed", "recorded")


@pytest.mark.parametrize(
    ("flags", "architecture", "reduced"),
    [((), "x86_64", True), (("avx512_vnni",), "x86_64", False), ((), "aarch64", False)],
)
def test_the_flags_of_the_device_decide_its_int8(
    study_folder: Path, flags: tuple[str, ...], architecture: str, reduced: bool
) -> None:
    device, executor = replace(this_device(), flags=flags, architecture=architecture), Recipes()
    runner = TrialRunner(study_folder, executor, 60.0)
    variants = Variants(
        load_bundle(f"{study_folder / 'source'}/"), None, Dataset({}, "", "x"), device, runner
    )
    variants.graph_of(Candidate("onnxruntime", "int8", Size(64, 64), 1))
    assert executor.reduced is reduced


def test_a_measurement_states_its_machine_and_brings_its_predictions(
    device_host: Loopback, study_folder: Path
) -> None:
    trial = measurement()
    with OnDevice() as device:
        outcome = device.run(trial, study_folder, 120)
    assert outcome.status == "done" and outcome.result is not None, outcome
    assert outcome.result.machine == f"{device.found.cpu}, 1 cores"
    there = (study_folder / "predictions" / "x.npz").read_bytes()
    here = LocalExecutor().run(trial, study_folder, 120)
    assert (
        here.result is not None and here.result.machine == f"{this_device().cpu}, {this_device().cores} cores"
    )
    assert here.result.agreement == outcome.result.agreement
    assert len(there) == (study_folder / "predictions" / "x.npz").stat().st_size
    device_host.wait_for_no_process()
    assert not list((device_host.cache / "work").iterdir()) and not list(
        (device_host.cache / "partial").iterdir()
    )


def test_a_present_file_is_not_sent_again_and_a_changed_one_is(
    device_host: Loopback, study_folder: Path
) -> None:
    with OnDevice() as device:
        device.run(measurement(), study_folder, 120)
    before = inodes(device_host)
    image = study_folder / "images" / "003.png"
    assert sha256(image.read_bytes()) in before and sha256(package_zip()) in before
    image.write_bytes((study_folder / "images" / "004.png").read_bytes() + b"\n")
    with OnDevice(study="another") as device:
        assert device.run(measurement(), study_folder, 120).status == "done"
    after = inodes(device_host)
    assert {name: after[name] for name in before} == before
    assert sha256(image.read_bytes()) in set(after) - set(before)


def test_an_interrupted_transfer_continues_and_a_damaged_one_is_repeated(
    device_host: Loopback, study_folder: Path
) -> None:
    package, model = package_zip(), (study_folder / "source" / "model.onnx").read_bytes()
    partial = device_host.cache / "partial"
    with OnDevice():
        pass
    half = len(package) // 2
    (device_host.cache / "blobs" / sha256(package)).unlink()
    (partial / sha256(package)).write_bytes(package[:half])
    (partial / sha256(model)).write_bytes(b"damaged")
    sent = []
    with pytest.MonkeyPatch.context() as patch:
        request = session.SshSession.request

        def counted(self: Any, request_name: str, data: bytes = b"", /, **more: Any) -> Any:
            if data:
                sent.append((more["name"], len(data)))
            return request(self, request_name, data, **more)

        patch.setattr(session.SshSession, "request", counted)
        with OnDevice() as device:
            assert device.run(measurement(), study_folder, 120).status == "done"
    assert sum(size for name, size in sent if name == sha256(package)) == len(package) - half
    assert [size for name, size in sent if name == sha256(model)] == [len(model) - 7, len(model)]
    assert not list(partial.iterdir())


def test_a_result_that_was_measured_is_not_measured_again(device_host: Loopback, study_folder: Path) -> None:
    """The connection was lost after the measurement, and before its result arrived."""
    with OnDevice() as device:
        first = device.run(measurement(), study_folder, 120)
    (study_folder / "predictions" / "x.npz").unlink()
    with OnDevice() as device:
        assert device.run(measurement(), study_folder, 120) == first
    assert (study_folder / "predictions" / "x.npz").is_file() and len(
        list((device_host.cache / "results").iterdir())
    ) == 1
    with OnDevice(study="another") as device:
        assert device.run(measurement(), study_folder, 120) != first


@pytest.fixture
def often_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short trial is noticed while it runs."""
    monkeypatch.setattr(session, "_POLL_S", 0.02)


@pytest.mark.usefixtures("often_asked")
def test_a_killed_device_runs_the_trial_again(device_host: Loopback, study_folder: Path) -> None:
    """All processes there are killed while the trial runs, as by a power cut."""
    killed: list[int] = []

    def kill() -> None:
        if not killed and device_host.runs("trials.process"):
            for process in (*device_host.connections(), *device_host.agents()):
                killed.append(process.pid)
                process.kill()

    with OnDevice() as device:
        device.while_waiting = kill
        outcome = device.run(measurement(3.0), study_folder, 120)
    assert killed and outcome.status == "done"
    assert len(device.reports) == 1 and "connecting again" in device.reports[0]
    assert len(list((device_host.cache / "results").iterdir())) == 1


@pytest.mark.usefixtures("often_asked")
def test_a_silent_link_counts_as_lost_and_the_device_ends_its_trial(
    device_host: Loopback, study_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's process is stopped, so nothing arrives on either side. The agent notices it by itself, and
    the next one waits for it: two trials never run at a time."""
    monkeypatch.setattr(session, "SILENCE_S", 6.0)
    stopped: list[Any] = []

    def stop() -> None:
        if not stopped and device_host.runs("trials.process"):
            stopped.extend(device_host.connections())
            for process in stopped:
                process.suspend()

    with OnDevice() as device:
        device.while_waiting = stop
        outcome = device.run(measurement(), study_folder, 120)
    for process in stopped:
        process.kill()
    assert stopped and outcome.status == "done"
    assert any("no sign of life for 6 s" in text for text in device.reports)


def test_a_device_that_stays_away_stops_the_study_with_clear_words(
    device_host: Loopback, study_folder: Path
) -> None:
    with OnDevice() as device:
        for process in (*device_host.connections(), *device_host.agents()):
            process.kill()
        hosts = device_host.folder / "known_hosts"
        known = hosts.read_text()
        hosts.write_text("")
        try:
            with pytest.raises(OptimizeError, match=r"no connection in 3 attempts.*optimize resume DIR"):
                device.run(measurement(), study_folder, 120)
        finally:
            hosts.write_text(known)


def test_a_trial_that_hangs_or_crashes_there_has_the_same_outcome_as_here(
    device_host: Loopback, study_folder: Path
) -> None:
    with OnDevice() as device:
        late = device.run(measurement(), study_folder, 0.2)
        crashed = device.run(replace(measurement(), kind="unknown"), study_folder, 120)
        failed = device.run(measurement(backend="nowhere"), study_folder, 120)
    assert late == TrialOutcome("timeout", "exceeded the time limit of 0 s")
    assert (crashed.status, failed.status) == ("crashed", "failed")
    assert "its process exited with status 1: " in crashed.reason and "nowhere" in failed.reason


def test_a_python_without_packages_is_refused_with_their_names(device_host: Loopback, tmp_path: Path) -> None:
    bare = script(tmp_path, "python", f'exec {sys.executable} -S "$@"')
    with pytest.raises(OptimizeError, match=r"got none of numpy, cv2, yaml; there: .* -m pip install numpy "):
        OnDevice(f"ssh://{HOST}{bare}").connect()


def test_a_path_with_quotes_is_run_and_a_greeting_of_the_shell_is_skipped(
    device_host: Loopback, tmp_path: Path
) -> None:
    odd = script(tmp_path / "it's $(touch made) here", "py thon", f'echo Welcome; exec {sys.executable} "$@"')
    with OnDevice(f"ssh://{HOST}{odd}") as device:
        assert device.found.cores == 1
    assert not (Path.home() / "made").exists()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            f"ssh://{HOST}/nowhere/python",
            r"expected the command /nowhere/python there, got: .*not found|No such",
        ),
        (f"ssh://{HOST}/bin/false", "the agent did not start: exit status 1"),
        ("ssh://127.0.0.1:1", "Connection refused"),
        (f"ssh://nobody-of-this-name@{HOST}", "Permission denied"),
    ],
)
def test_a_device_that_cannot_be_used_is_an_error_with_the_reason(
    device_host: Loopback, address: str, message: str
) -> None:
    with pytest.raises(OptimizeError, match=message):
        OnDevice(address).connect()


def test_an_unknown_host_key_is_refused(device_host: Loopback) -> None:
    hosts = device_host.folder / "known_hosts"
    known = hosts.read_text()
    hosts.write_text("")
    try:
        with pytest.raises(OptimizeError, match="Host key verification failed"):
            OnDevice().connect()
    finally:
        hosts.write_text(known)


def other_python() -> str:
    """A Python of another version with what measuring needs, on the PATH."""
    own = f"python3.{sys.version_info.minor}"
    for name in (f"python3.{minor}" for minor in range(10, 16)):
        found = shutil.which(name)
        if found is None or name == own:
            continue
        check = [found, "-c", "import cv2, numpy, onnxruntime, yaml"]
        if subprocess.run(check, capture_output=True).returncode == 0:
            return found
    pytest.skip("needs another Python with numpy, opencv, PyYAML and onnxruntime on the PATH")


def test_a_device_may_have_another_python(device_host: Loopback, study_folder: Path) -> None:
    with OnDevice(f"ssh://{HOST}{other_python()}") as device:
        outcome = device.run(measurement(), study_folder, 120)
    assert outcome.status == "done" and outcome.result is not None and outcome.result.agreement.value == 1.0


def test_a_device_without_the_runtime_is_refused(study_folder: Path) -> None:
    device = OptimizedDevice("cpu", 4, (), "", None, {}, "ssh://robot", unavailable={"openvino": "not there"})
    with pytest.raises(OptimizeError, match="ssh://robot: openvino: not there"):
        selected_backends(["openvino"], device)
    with pytest.raises(OptimizeError, match=r"ssh://robot: no runtime is installed: .*onnxruntime"):
        selected_backends([], device)
