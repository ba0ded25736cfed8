"""Studies on other machines: a real SSH server on 127.0.0.1 with another CPU affinity is the device."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optimize_cases import image_folder, tiny_bundle, tiny_graph
from ssh_cases import HOST, Loopback, loopback

from edge_vision.bundles.store import load_bundle
from edge_vision.core.child_process import child_environment
from edge_vision.optimize import device_studies
from edge_vision.optimize.candidate import Candidate, Size
from edge_vision.optimize.command import main
from edge_vision.optimize.dataset import Dataset
from edge_vision.optimize.device import OptimizedDevice, this_device
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.measure import Measurement, MeasureTask
from edge_vision.optimize.quantization.variants import Variants
from edge_vision.optimize.remote import agent, session
from edge_vision.optimize.remote.address import LOCAL, DeviceAddress, check_devices
from edge_vision.optimize.remote.agent import AgentError, Cache, Frames, frame
from edge_vision.optimize.remote.executor import DeviceExecutor
from edge_vision.optimize.remote.package import package_zip
from edge_vision.optimize.report.report_file import read_report
from edge_vision.optimize.runtimes import selected_backends
from edge_vision.optimize.trial_executor import LocalExecutor, Result, Trial, TrialExecutor, TrialOutcome
from edge_vision.optimize.trial_runner import TrialRunner
from edge_vision.optimize.worker import WorkerSetup

pytestmark = pytest.mark.timeout(300)
DEVICE = f"ssh://{HOST}{sys.executable}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    """A machine with one CPU: the highest that this one may use."""
    prefix = ("taskset", "-c", str(max(os.sched_getaffinity(0)))) if shutil.which("taskset") else ()
    with loopback(tmp_path_factory.mktemp("robot"), *prefix) as running:
        yield running


@pytest.fixture
def robot(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """The machine, reached by the name HOST. Its cache has nothing but the package."""
    monkeypatch.setenv("PATH", f"{server.bin}:{os.environ['PATH']}")
    server.wait_for_no_process()
    for name in ("blobs", "partial", "results"):
        for file in (server.cache / name).glob("*"):
            if file.name != sha256(package_zip()):
                file.unlink()
    return server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study's folder with a bundle and images."""
    for name in ("trials", "predictions"):
        (tmp_path / name).mkdir()
    tiny_bundle(tmp_path / "source", tiny_graph(tmp_path / "tiny.onnx"))
    image_folder(tmp_path / "images", 8)
    return tmp_path


def measurement(measure_s: float = 0.2, **others: Any) -> Trial[Measurement]:
    setup = replace(WorkerSetup("source", "onnxruntime", "auto", 1, "images"), **others)
    task = MeasureTask(setup, None, "classify", measure_s, "predictions/x.npz", "predictions/x.npz")
    return Trial("measure", "x", task, Measurement)


class OnDevice(DeviceExecutor):
    """Connected. reports: the lines that stay."""

    def __init__(self, address: str = DEVICE, **options: Any) -> None:
        self.reports: list[str] = []
        self.while_waiting: Callable[[], None] = lambda: None
        options = {"study": "study", "waits_s": (0.1, 0.2, 0.4), **options}
        super().__init__(
            DeviceAddress.parse(address),
            LocalExecutor(),
            log=self.reports.append,
            show_progress=lambda text: self.while_waiting(),
            **options,
        )

    def __enter__(self) -> OnDevice:
        self.found = self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def inodes(robot: Loopback) -> dict[str, int]:
    return {file.name: file.stat().st_ino for file in (robot.cache / "blobs").iterdir()}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("text", "user", "host", "port", "python"),
    [
        ("ssh://robot", "", "robot", "", "python3"),
        (
            "ssh://pi@10.0.0.7:2222/opt/my venv/bin/python",
            "pi",
            "10.0.0.7",
            "2222",
            "/opt/my venv/bin/python",
        ),
        ("ssh://a.b-c@[fe80::1%eth0]:22", "a.b-c", "fe80::1%eth0", "22", "python3"),
    ],
)
def test_an_address_has_a_host_and_optional_parts(
    text: str, user: str, host: str, port: str, python: str
) -> None:
    found = DeviceAddress.parse(text)
    assert (found.user, found.host, found.port, found.python) == (user, host, port, python)


@pytest.mark.parametrize(
    "text",
    [
        "robot",
        "ssh://",
        "ssh://-oProxyCommand=id",
        "ssh://-l@robot",
        "ssh://r;id",
        "ssh://r obot",
        "ssh://$(id)",
        "ssh://robot:0",
        "ssh://robot:65536",
        "ssh://robot:x",
        "ssh://robot/a\nb",
        "ssh://robot/",
        "ssh://a@b@c",
    ],
)
def test_an_address_that_ssh_or_a_shell_would_misread_is_refused(text: str) -> None:
    with pytest.raises(OptimizeError, match="expected local or ssh://"):
        DeviceAddress.parse(text)


def test_the_remote_shell_receives_the_words_unchanged() -> None:
    words = ["/opt/it's $(id) `id`/python", "-c", "print('a;b') # \\"]
    *_, separator, host, command = DeviceAddress.parse("ssh://pi@robot:22").ssh_command("ssh", *words)
    assert (separator, host) == ("--", "robot")
    done = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == words == shlex.split(command)


def test_a_device_is_given_once() -> None:
    check_devices((LOCAL, "ssh://robot", "ssh://robot:23"))
    for twice in ((LOCAL, LOCAL), ("ssh://robot/a/b", "ssh://robot/a-b")):
        with pytest.raises(OptimizeError, match="expected each once"):
            check_devices(twice)


def test_the_device_states_its_own_processor_and_runtimes(robot: Loopback) -> None:
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
    folder: Path, flags: tuple[str, ...], architecture: str, reduced: bool
) -> None:
    device, executor = replace(this_device(), flags=flags, architecture=architecture), Recipes()
    runner = TrialRunner(folder, executor, 60.0)
    variants = Variants(load_bundle(f"{folder / 'source'}/"), None, Dataset({}, "", "x"), device, runner)
    variants.graph_of(Candidate("onnxruntime", "int8", Size(64, 64), 1))
    assert executor.reduced is reduced


def test_a_measurement_states_its_machine_and_brings_its_predictions(robot: Loopback, folder: Path) -> None:
    trial = measurement()
    with OnDevice() as device:
        outcome = device.run(trial, folder, 120)
    assert outcome.status == "done" and outcome.result is not None, outcome
    assert outcome.result.machine == f"{device.found.cpu}, 1 cores"
    there = (folder / "predictions" / "x.npz").read_bytes()
    here = LocalExecutor().run(trial, folder, 120)
    assert (
        here.result is not None and here.result.machine == f"{this_device().cpu}, {this_device().cores} cores"
    )
    assert here.result.agreement == outcome.result.agreement
    assert len(there) == (folder / "predictions" / "x.npz").stat().st_size
    robot.wait_for_no_process()
    assert not list((robot.cache / "work").iterdir()) and not list((robot.cache / "partial").iterdir())


def test_a_present_file_is_not_sent_again_and_a_changed_one_is(robot: Loopback, folder: Path) -> None:
    with OnDevice() as device:
        device.run(measurement(), folder, 120)
    before = inodes(robot)
    image = folder / "images" / "003.png"
    assert sha256(image.read_bytes()) in before and sha256(package_zip()) in before
    image.write_bytes((folder / "images" / "004.png").read_bytes() + b"\n")
    with OnDevice(study="another") as device:
        assert device.run(measurement(), folder, 120).status == "done"
    after = inodes(robot)
    assert {name: after[name] for name in before} == before
    assert sha256(image.read_bytes()) in set(after) - set(before)


def test_an_interrupted_transfer_continues_and_a_damaged_one_is_repeated(
    robot: Loopback, folder: Path
) -> None:
    package, model = package_zip(), (folder / "source" / "model.onnx").read_bytes()
    partial = robot.cache / "partial"
    with OnDevice():
        pass
    half = len(package) // 2
    (robot.cache / "blobs" / sha256(package)).unlink()
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
            assert device.run(measurement(), folder, 120).status == "done"
    assert sum(size for name, size in sent if name == sha256(package)) == len(package) - half
    assert [size for name, size in sent if name == sha256(model)] == [len(model) - 7, len(model)]
    assert not list(partial.iterdir())


def test_a_result_that_was_measured_is_not_measured_again(robot: Loopback, folder: Path) -> None:
    """The connection was lost after the measurement, and before its result arrived."""
    with OnDevice() as device:
        first = device.run(measurement(), folder, 120)
    (folder / "predictions" / "x.npz").unlink()
    with OnDevice() as device:
        assert device.run(measurement(), folder, 120) == first
    assert (folder / "predictions" / "x.npz").is_file() and len(
        list((robot.cache / "results").iterdir())
    ) == 1
    with OnDevice(study="another") as device:
        assert device.run(measurement(), folder, 120) != first


def test_a_killed_device_runs_the_trial_again(robot: Loopback, folder: Path) -> None:
    """All processes there are killed while the trial runs, as by a power cut."""
    killed: list[int] = []

    def kill() -> None:
        if not killed and robot.runs("trial_process"):
            for process in (*robot.connections(), *robot.agents()):
                killed.append(process.pid)
                process.kill()

    with OnDevice() as device:
        device.while_waiting = kill
        outcome = device.run(measurement(3.0), folder, 120)
    assert killed and outcome.status == "done"
    assert len(device.reports) == 1 and "connecting again" in device.reports[0]
    assert len(list((robot.cache / "results").iterdir())) == 1


def test_a_silent_link_counts_as_lost_and_the_device_ends_its_trial(
    robot: Loopback, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's process is stopped, so nothing arrives on either side. The agent notices it by itself, and
    the next one waits for it: two trials never run at a time."""
    monkeypatch.setattr(session, "SILENCE_S", 6.0)
    stopped: list[Any] = []

    def stop() -> None:
        if not stopped and robot.runs("trial_process"):
            stopped.extend(robot.connections())
            for process in stopped:
                process.suspend()

    with OnDevice() as device:
        device.while_waiting = stop
        outcome = device.run(measurement(), folder, 120)
    for process in stopped:
        process.kill()
    assert stopped and outcome.status == "done"
    assert any("no sign of life for 6 s" in text for text in device.reports)


def test_a_device_that_stays_away_stops_the_study_with_clear_words(robot: Loopback, folder: Path) -> None:
    with OnDevice() as device:
        for process in (*robot.connections(), *robot.agents()):
            process.kill()
        hosts = robot.folder / "known_hosts"
        known = hosts.read_text()
        hosts.write_text("")
        try:
            with pytest.raises(OptimizeError, match=r"no connection in 3 attempts.*optimize resume DIR"):
                device.run(measurement(), folder, 120)
        finally:
            hosts.write_text(known)


def test_a_trial_that_hangs_or_crashes_there_has_the_same_outcome_as_here(
    robot: Loopback, folder: Path
) -> None:
    with OnDevice() as device:
        late = device.run(measurement(), folder, 0.2)
        crashed = device.run(replace(measurement(), kind="unknown"), folder, 120)
        failed = device.run(measurement(backend="nowhere"), folder, 120)
    assert late == TrialOutcome("timeout", "exceeded the time limit of 0 s")
    assert (crashed.status, failed.status) == ("crashed", "failed")
    assert "its process exited with status 1: " in crashed.reason and "nowhere" in failed.reason


def script(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


def test_a_python_without_packages_is_refused_with_their_names(robot: Loopback, tmp_path: Path) -> None:
    bare = script(tmp_path, "python", f'exec {sys.executable} -S "$@"')
    with pytest.raises(OptimizeError, match=r"got none of numpy, cv2, yaml; there: .* -m pip install numpy "):
        OnDevice(f"ssh://{HOST}{bare}").connect()


def test_a_path_with_quotes_is_run_and_a_greeting_of_the_shell_is_skipped(
    robot: Loopback, tmp_path: Path
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
    robot: Loopback, address: str, message: str
) -> None:
    with pytest.raises(OptimizeError, match=message):
        OnDevice(address).connect()


def test_an_unknown_host_key_is_refused(robot: Loopback) -> None:
    hosts = robot.folder / "known_hosts"
    known = hosts.read_text()
    hosts.write_text("")
    try:
        with pytest.raises(OptimizeError, match="Host key verification failed"):
            OnDevice().connect()
    finally:
        hosts.write_text(known)


def tiny_study(tmp_path: Path, *more: str) -> tuple[list[str], Path]:
    model = tiny_bundle(tmp_path / "bundle", tiny_graph(tmp_path / "tiny.onnx"))
    clips = [str(image_folder(tmp_path / name, 10, seed)) for seed, name in enumerate("ab")]
    quick = ["--measure-s", "0.2", "--images", "8", "--threads", "1", "--backends", "onnxruntime"]
    out = tmp_path / "out"
    arguments = ["run", str(model), "--calibration", clips[0], "--frames", clips[1], *quick, *more]
    return [*arguments, "--out", str(out)], out


def test_several_devices_give_one_table_and_a_bundle_each(
    robot: Loopback, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["--device", LOCAL, "--device", DEVICE]
    arguments, out = tiny_study(tmp_path, "--precisions", "fp32", "int8", "--sizes", "native", *both)
    assert main(arguments) in (0, 3)
    printed = capsys.readouterr().out
    values = json.loads((out / "devices.json").read_text())
    here, there = values["devices"]
    assert (here["device"], here["folder"], there["device"]) == (LOCAL, ".", DEVICE)
    assert there["cores"] == 1 and there["flags"] == here["flags"]
    rows = {row["id"]: row["devices"] for row in values["rows"]}
    assert {"onnxruntime-fp32-64x64-t1", "onnxruntime-int8-64x64-t1"} < set(rows)
    for name, cells in rows.items():
        assert set(cells) == {LOCAL, DEVICE} and printed.count(name) >= 1
        assert cells[DEVICE]["machine"].endswith(", 1 cores")
        assert cells[LOCAL]["agreement"] == cells[DEVICE]["agreement"]
    for device in (here, there):
        report = read_report(out / device["folder"])
        assert report.device.address == device["device"] and report.decision.chosen == device["chosen"]
        assert f"{device['name']}: chosen: {device['chosen']}" in printed
        assert load_bundle(str(out / device["folder"] / "bundle")).manifest.figures["optimize"]
    # The variants were made once: the second study's copies have the outcomes of the first.
    made = [
        json.loads((one / "trials/variant-int8-64x64.outcome").read_text())
        for one in (out, out / there["folder"])
    ]
    assert made[0] == made[1]
    robot.wait_for_no_process()
    assert main(["report", str(out)]) in (0, 3)
    assert there["name"] in capsys.readouterr().out


def test_a_study_is_resumed_with_another_device(robot: Loopback, tmp_path: Path) -> None:
    arguments, out = tiny_study(tmp_path, "--precisions", "fp32", "fp16", "--sizes", "native")
    assert main(arguments) == 0
    kept = {file: file.read_bytes() for file in (out / "trials").glob("*.outcome")}
    assert kept and main(["resume", str(out), "--device", DEVICE]) == 0
    assert {file: file.read_bytes() for file in (out / "trials").glob("*.outcome")} == kept
    values = json.loads((out / "devices.json").read_text())
    assert [one["device"] for one in values["devices"]] == [LOCAL, DEVICE]
    assert all(set(row["devices"]) == {LOCAL, DEVICE} for row in values["rows"])
    stamps = {file: file.stat().st_mtime_ns for file in out.rglob("trials/*")}
    assert main(["resume", str(out)]) == 0
    assert {file: file.stat().st_mtime_ns for file in out.rglob("trials/*")} == stamps


def test_a_wrong_address_leaves_a_folder_that_can_be_used_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not shutil.which("ssh"):
        pytest.skip("ssh is not installed")
    arguments, out = tiny_study(tmp_path, "--device", "ssh://127.0.0.1:1")
    for _ in range(2):
        assert main(arguments) == 1
        assert "Connection refused" in capsys.readouterr().err
    assert main(["report", str(out)]) == 1 and (out / "devices.json").is_file()
    assert main(arguments) == 1
    assert "Connection refused" in capsys.readouterr().err


def test_devices_are_not_combined_with_a_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, _ = tiny_study(tmp_path, "--device", LOCAL, "--executor", "ray")
    assert main(arguments) == 2
    assert "--device: expected --executor local with it, got --executor ray" in capsys.readouterr().err


class GoesAway(DeviceExecutor):
    """Before its third measurement, all its processes are killed, and it cannot be reached again."""

    robot: Loopback
    left = 2

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, waits_s=(0.1, 0.1))

    def run(self, trial: Trial[Result], folder: Path, timeout_s: float) -> TrialOutcome[Result]:
        if trial.kind == "measure":
            self.left -= 1
            if self.left < 0:
                (self.robot.folder / "known_hosts").write_text("")
                for process in (*self.robot.connections(), *self.robot.agents()):
                    process.kill()
        return super().run(trial, folder, timeout_s)


def test_a_device_that_goes_away_loses_nothing_and_the_other_continues(
    robot: Loopback, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["--device", LOCAL, "--device", DEVICE]
    arguments, out = tiny_study(tmp_path, "--precisions", "fp32", "fp16", "int8", "--sizes", "native", *both)
    known = (robot.folder / "known_hosts").read_text()
    GoesAway.robot = robot
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_studies, "DeviceExecutor", GoesAway)
        assert main(arguments) == 1
    assert "no connection in 2 attempts" in (printed := capsys.readouterr().out)
    assert f"continue with: optimize resume {out}" in printed
    values = json.loads((out / "devices.json").read_text())
    here, there = values["devices"]
    assert here["complete"] and here["chosen"] and there["error"] and not there["complete"]
    assert [DEVICE in row["devices"] for row in values["rows"]] == [True, True, False, False]
    kept = {file: file.read_bytes() for file in out.rglob("*.outcome")}
    (robot.folder / "known_hosts").write_text(known)
    assert main(["resume", str(out)]) in (0, 3)
    assert {file: file.read_bytes() for file in kept} == kept
    values = json.loads((out / "devices.json").read_text())
    assert all(one["complete"] and not one["error"] for one in values["devices"])
    assert all(set(row["devices"]) == {LOCAL, DEVICE} for row in values["rows"])


@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_study_leaves_no_process_on_the_device(
    robot: Loopback, tmp_path: Path, ends: signal.Signals
) -> None:
    arguments, _ = tiny_study(
        tmp_path, "--precisions", "fp32", "fp16", "--measure-s", "20", "--device", LOCAL, "--device", DEVICE
    )
    command = [sys.executable, "-m", "edge_vision", "optimize", *arguments]
    child = subprocess.Popen(command, env=child_environment(), stderr=subprocess.PIPE, text=True)
    until_s = time.monotonic() + 120
    while time.monotonic() < until_s and child.poll() is None:
        if robot.runs("optimize.worker"):
            break
        time.sleep(0.2)
    assert robot.runs("optimize.worker")
    child.send_signal(ends)
    said = child.communicate(timeout=60)[1]
    if ends == signal.SIGINT:
        assert "continue with: optimize resume" in said
    assert child.returncode == {signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}[ends]
    robot.wait_for_no_process(10.0)


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


def test_a_device_may_have_another_python(robot: Loopback, folder: Path) -> None:
    with OnDevice(f"ssh://{HOST}{other_python()}") as device:
        outcome = device.run(measurement(), folder, 120)
    assert outcome.status == "done" and outcome.result is not None and outcome.result.agreement.value == 1.0


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path))
    return tmp_path / "device"


def put(cache: Cache, data: bytes) -> str:
    cache.missing({sha256(data): len(data)})
    assert cache.write(sha256(data), 0, data, len(data)) == len(data)
    return sha256(data)


def test_the_cache_deletes_what_was_used_least_recently(cache_folder: Path) -> None:
    cache = Cache(1000)
    names = [put(cache, bytes([number]) * 400) for number in range(2)]
    for number, name in enumerate(names):
        os.utime(cache_folder / "blobs" / name, (1000 + number, 1000 + number))
    assert cache.missing({names[0]: 400}) == {}
    put(cache, b"x" * 400)
    assert cache.has(names[0]) and not cache.has(names[1])
    with pytest.raises(AgentError, match="expected at most 0 MB"):
        cache.missing({"a" * 64: 1001})


def test_the_cache_is_one_folder_that_is_ours(cache_folder: Path, tmp_path: Path) -> None:
    cache_folder.mkdir()
    (cache_folder / "photo.jpg").write_text("mine")
    with pytest.raises(AgentError, match="got other files"):
        Cache(1000)
    shutil.rmtree(cache_folder)
    (tmp_path / "elsewhere").mkdir()
    cache_folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AgentError, match="got a link"):
        Cache(1000)


def test_two_agents_never_share_the_cache(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "_LOCK_S", 0.1)
    first = Cache(1000)
    with pytest.raises(AgentError, match="is using this device"):
        Cache(1000)
    os.close(first._lock_fd)
    Cache(1000)


def test_frames_end_with_the_connection_or_after_silence() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"hello\n" + frame({"id": 1}, b"\n\n") + frame({})[:5])
    frames = Frames(reading, 0.1)
    assert frames.line() == b"hello\n" and frames.next() == ({"id": 1, "size": 2}, b"\n\n")
    with pytest.raises(TimeoutError, match="no sign of life"):
        frames.next()
    os.close(writing)
    with pytest.raises(EOFError):
        frames.next()
    os.close(reading)


def test_a_device_without_the_runtime_is_refused(folder: Path) -> None:
    device = OptimizedDevice("cpu", 4, (), "", None, {}, "ssh://robot", unavailable={"openvino": "not there"})
    with pytest.raises(OptimizeError, match="ssh://robot: openvino: not there"):
        selected_backends(["openvino"], device)
    with pytest.raises(OptimizeError, match=r"ssh://robot: no runtime is installed: .*onnxruntime"):
        selected_backends([], device)
